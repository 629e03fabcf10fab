"""Chains side by side: each request goes to all in turn; what each process burnt is read off /proc."""

import json
import random
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median, quantiles

from loadtests.bench.http import Connection, Timed
from loadtests.bench.processes_cost import cpu_seconds, resident_megabytes
from loadtests.bench.prose import Conversation, chat_body, prose
from loadtests.bench.results import Ratio, Results
from loadtests.bench.workload import KINDS, Ask, workload
from loadtests.stack.chain import Chain, ChainOptions, Part, Upstream
from loadtests.stack.model_source import Model

__all__ = ["measure_against_dynamo", "measure_chain", "measure_memory", "measure_scaling"]

PATH = "/v1/chat/completions"
BRIEF = f"{PATH}?brief=1"
SIZES = {"1k": 1_000, "8k": 8_000, "32k": 32_000, "128k": 128_000}
REQUESTS = {"1k": 80, "8k": 60, "32k": 30, "128k": 16}
# Few at a time: two processes that fill both cores would be measured against one that fills one.
SCALING_CONNECTIONS = 2
# What each chain is sent before it is the other's turn: the first few find their process cold.
SCALING_BATCH = 100
WARM_UPS = 200  # ten seconds and more
# The answers of the mocker cost nothing, so that what is in front of it shows.
FAST_MOCKER = ("--speedup-ratio", "1000", "--num-gpu-blocks-override", "65536")


@dataclass(slots=True)
class Series:
    """One chain's answers to one workload, and the CPU seconds its processes spent on them."""

    times: list[float] = field(default_factory=list)
    firsts: list[float] = field(default_factory=list)
    cpu: dict[str, float] = field(default_factory=dict)

    def figures(self) -> dict[str, object]:
        count = len(self.times)
        return {
            "requests": count,
            "p50_ms": round(median(self.times) * 1e3, 3),
            "p95_ms": round(quantiles(self.times, n=20)[-1] * 1e3, 3),
            "first_p50_ms": round(median(self.firsts) * 1e3, 3),
            "cpu_ms_per_request": {name: round(value / count * 1e3, 3) for name, value in self.cpu.items()},
        }


def interleaved(chains: Mapping[str, Chain], target: str, asks: Sequence[Ask]) -> dict[str, Series]:
    """Send each body to every chain, one after the other. Raises RuntimeError for an answer that is not 200.

    In another order each time: who comes next finds the cores' caches as the one before has left them.
    """
    series = {name: Series() for name in chains}
    with ExitStack() as stack:
        connections = {name: stack.enter_context(Connection(chain.url)) for name, chain in chains.items()}
        for index, ask in enumerate(asks):
            for name in random.Random(index).sample(list(connections), len(connections)):
                before = _cpu(chains[name])
                answer = connections[name].post(target, ask.body)
                if answer.status != 200:
                    raise RuntimeError(f"{name}: status {answer.status}: {answer.body[:300]!r}")
                if ask.counts:
                    _book(series[name], answer, before, _cpu(chains[name]))
    return series


def _book(series: Series, answer: Timed, before: Mapping[str, float], after: Mapping[str, float]) -> None:
    series.times.append(answer.seconds)
    series.firsts.append(answer.first_seconds)
    for name, value in after.items():
        kind = name.partition("-")[0] if not name.startswith("epp") else "epp-adapter"
        series.cpu[kind] = series.cpu.get(kind, 0.0) + value - before.get(name, 0.0)


def _cpu(chain: Chain) -> dict[str, float]:
    return {name: cpu_seconds([process.pid]) for name, process in chain.processes.items() if process.running}


def measure_chain(
    results: Results, model: Model, logs: Path, *, chars_per_token: float, progress: Callable[[str], None]
) -> None:
    """Direct Envoy, two empty ext_procs, and our chain with Dynamo's router, before echo servers.

    Then, by themselves since each contender makes the others colder: two empty ones, and two of which the
    first moves as many bytes as ids take ("carrying"), which no implementation can save.
    """
    common = {"model": model, "workers": 2, "upstream": Upstream.ROUTED_ECHO, "mocker_arguments": FAST_MOCKER}
    plain = {**common, "upstream": Upstream.ECHO}
    variants = {
        "direct": ChainOptions(tokenext=Part.ABSENT, epp=Part.ABSENT, **plain),  # type: ignore[arg-type]
        "empty": ChainOptions(tokenext=Part.PASSING, epp=Part.PASSING, **plain),  # type: ignore[arg-type]
        "ours": ChainOptions(**common),  # type: ignore[arg-type]
    }
    table: dict[str, object] = {}
    with ExitStack() as stack:
        chains = {
            name: stack.enter_context(Chain(options, logs=logs / f"chain-{name}"))
            for name, options in variants.items()
        }
        for kind in KINDS:
            for size, tokens in SIZES.items():
                progress(f"chain: {kind}, {size} tokens")
                count = _count(results, size)
                asks = workload(model.name, kind, tokens, count, chars_per_token=chars_per_token)
                series = interleaved(chains, BRIEF, asks)
                table[f"{kind} {size}"] = {name: each.figures() for name, each in series.items()}
                if kind == "multi-turn":
                    _chain_ratios(results, size, series)
        results.measurements["chain"] = table
        carrying = ChainOptions(tokenext=Part.CARRYING, epp=Part.PASSING, **plain)  # type: ignore[arg-type]
        pair = {
            "empty": chains["empty"],
            "carrying": stack.enter_context(Chain(carrying, logs=logs / "chain-carrying")),
        }
        moved: dict[str, object] = {}
        for size, tokens in SIZES.items():
            progress(f"chain: only the bytes, {size} tokens")
            asks = workload(
                model.name, "multi-turn", tokens, _count(results, size), chars_per_token=chars_per_token
            )
            moved[size] = {name: each.figures() for name, each in interleaved(pair, BRIEF, asks).items()}
        results.measurements["carrying"] = moved


def _chain_ratios(results: Results, size: str, series: Mapping[str, Series]) -> None:
    ours, empty = series["ours"], series["empty"]
    bounds = {"8k": (1.6, 1.2), "128k": (3.5, 2.0)}
    if size in bounds:
        must, aim = bounds[size]
        results.ratios[f"chain: p50 over two empty ext_procs, multi-turn {size}"] = Ratio(
            median(ours.times) / median(empty.times), must, aim, "lower"
        )
    if size == "8k":
        count = len(ours.times)
        extra = (ours.cpu["tokenext"] - empty.cpu["tokenext"]) / count * 1e3
        results.ratios["tokenext: CPU over an empty ext_proc, multi-turn 8k"] = Ratio(
            extra, 1.3, 0.7, "lower", "ms"
        )
        results.ratios["epp-adapter: CPU over an empty ext_proc, multi-turn 8k"] = Ratio(
            ours.cpu["epp-adapter"] / empty.cpu["epp-adapter"], 2.2, 1.5, "lower"
        )


def measure_against_dynamo(
    results: Results, model: Model, logs: Path, *, chars_per_token: float, progress: Callable[[str], None]
) -> None:
    """Time to first token against Dynamo's own frontend that tokenizes and routes, behind the same Envoy."""
    tokens = 29_000
    common = {"model": model, "workers": 2, "mocker_arguments": FAST_MOCKER}
    theirs = {**common, "tokenext": Part.ABSENT, "epp": Part.ABSENT, "frontend_router_mode": "kv"}
    stripping = {
        "name": model.name, "source": str(model.folder), "handoff": "dynamo", "strip_messages": True,
    }  # fmt: skip
    variants = {
        "ours": ChainOptions(**common),  # type: ignore[arg-type]
        "ours, strip_messages": ChainOptions(tokenext_settings={"models": [stripping]}, **common),  # type: ignore[arg-type]
        "dynamo, default tokenizer": ChainOptions(
            frontend_arguments=("--tokenizer", "default"),
            **theirs,  # type: ignore[arg-type]
        ),
        "dynamo, fastokens": ChainOptions(
            frontend_arguments=("--tokenizer", "fastokens"),
            **theirs,  # type: ignore[arg-type]
        ),
    }
    table: dict[str, object] = {}
    with ExitStack() as stack:
        progress("against Dynamo's frontend: starting")
        chains = {
            name: stack.enter_context(Chain(options, logs=logs / f"ttft-{number}"))
            for number, (name, options) in enumerate(variants.items())
        }
        for kind in KINDS:
            progress(f"against Dynamo's frontend: {kind}, 29k tokens")
            count = 10 if results.quick else 30
            asks = workload(model.name, kind, tokens, count, chars_per_token=chars_per_token, stream=True)
            series = interleaved(chains, PATH, asks)
            table[f"{kind} 29k"] = {name: each.figures() for name, each in series.items()}
            if kind == "unique":
                ours = median(series["ours"].firsts)
                for name, must, aim in (
                    ("dynamo, default tokenizer", 0.35, 0.2),
                    ("dynamo, fastokens", 2.2, 1.0),
                ):
                    results.ratios[f"time to first token at 29k over {name}"] = Ratio(
                        ours / median(series[name].firsts), must, aim, "lower"
                    )
    results.measurements["against_dynamo"] = table


def measure_scaling(
    results: Results, model: Model, logs: Path, *, chars_per_token: float, progress: Callable[[str], None]
) -> None:
    """CPU per request and share of requests with one and with two tokenext processes."""
    progress("scaling: one and two tokenext processes")
    count = 200 if results.quick else 800
    asks = workload(model.name, "unique", 8_000, count, chars_per_token=chars_per_token)
    figures: dict[int, dict[str, object]] = {}
    costs: dict[int, float] = {}
    share = 0.5
    with ExitStack() as stack:
        chains = {
            number: stack.enter_context(
                Chain(
                    ChainOptions(
                        model=model, workers=1, upstream=Upstream.ECHO, handoff="dynamo", epp=Part.ABSENT,
                        tokenext_processes=number,
                    ),
                    logs=logs / f"scale-{number}",
                )
            )
            for number in (1, 2)
        }  # fmt: skip
        for chain in chains.values():
            _until_shared(chain, [ask.body for ask in asks[:20]])
        # Only while it has requests: Envoy's health checks cost the idle ones something, too.
        spent: dict[int, dict[str, float]] = {number: {} for number in chains}
        for start in range(0, len(asks), SCALING_BATCH):
            batch = [ask.body for ask in asks[start : start + SCALING_BATCH]]
            for number, chain in chains.items():
                before = _tokenext_cpu(chain)
                _concurrently(chain, batch, connections=SCALING_CONNECTIONS)
                for name, after in _tokenext_cpu(chain).items():
                    spent[number][name] = spent[number].get(name, 0.0) + after - before[name]
        for number, processes in spent.items():
            costs[number] = sum(processes.values()) / len(asks)
            share = max(processes.values()) / sum(processes.values())
            figures[number] = {
                "cpu_ms_per_request": round(costs[number] * 1e3, 3),
                "cpu_seconds": {name: round(value, 3) for name, value in processes.items()},
            }
    results.measurements["scaling"] = figures
    results.ratios["scaling: CPU per request, two processes over one"] = Ratio(
        costs[2] / costs[1], 1.1, 1.0, "lower"
    )
    results.ratios["scaling: share of the busier of two processes"] = Ratio(share, 0.55, 0.5, "lower")


def _until_shared(chain: Chain, bodies: Sequence[bytes]) -> None:
    """Send them until each process has worked: one whose first check was late is left out for a second."""
    for _ in range(WARM_UPS):
        before = _tokenext_cpu(chain)
        _concurrently(chain, bodies, connections=SCALING_CONNECTIONS)
        spent = [after - before[name] for name, after in _tokenext_cpu(chain).items()]
        if min(spent) > sum(spent) / len(spent) / 4:
            return
    raise RuntimeError(f"one of {len(spent)} tokenext processes gets no requests")


def _tokenext_cpu(chain: Chain) -> dict[str, float]:
    return {name: spent for name, spent in _cpu(chain).items() if name.startswith("tokenext")}


def _concurrently(chain: Chain, bodies: Sequence[bytes], *, connections: int) -> None:
    from concurrent.futures import ThreadPoolExecutor  # noqa: PLC0415

    def run(part: Sequence[bytes]) -> None:
        with Connection(chain.url) as connection:
            for body in part:
                answer = connection.post(BRIEF, body)
                if answer.status != 200:
                    raise RuntimeError(f"status {answer.status}")

    with ThreadPoolExecutor(connections) as threads:
        for future in [threads.submit(run, bodies[start::connections]) for start in range(connections)]:
            future.result()


def measure_memory(
    results: Results, model: Model, logs: Path, *, chars_per_token: float, progress: Callable[[str], None]
) -> None:
    """Resident memory of tokenext after warm-up and over 10,000 mixed requests (2,000 when quick)."""
    total = 2_000 if results.quick else 10_000
    batch = total // 20
    mix = [("unique", 1_000, 8), ("multi-turn", 1_000, 8), ("unique", 8_000, 3), ("multi-turn", 8_000, 1)]
    points: list[tuple[int, float]] = []
    options = ChainOptions(model=model, workers=1, upstream=Upstream.ECHO, handoff="dynamo", epp=Part.ABSENT)
    with Chain(options, logs=logs / "memory") as chain:
        pid = chain.processes["tokenext-0"].pid
        for step in range(20):
            progress(f"memory: {step * batch} of {total} requests")
            batch_of: list[bytes] = []
            for kind, tokens, weight in mix:
                count = batch * weight // 20
                if kind == "unique":
                    chars = round(tokens * chars_per_token)
                    texts = [prose(step * 1_000_003 + tokens + number, chars) for number in range(count)]
                    messages = [[{"role": "user", "content": text}] for text in texts]
                else:
                    talk = Conversation(step * 7 + tokens, round(tokens * chars_per_token))
                    messages = [talk.turn(number % 20) for number in range(min(count, 20))] * (
                        count // 20 + 1
                    )
                batch_of += [json.dumps(chat_body(model.name, each)).encode() for each in messages[:count]]
            _concurrently(chain, batch_of, connections=4)
            points.append(((step + 1) * batch, round(resident_megabytes(pid), 1)))
    half = points[len(points) // 2 :]
    results.measurements["memory_mb"] = points
    results.ratios["memory: resident after mixed requests"] = Ratio(points[-1][1], 350, 300, "lower", "MB")
    results.ratios["memory: growth over the last half of the run"] = Ratio(
        half[-1][1] / half[0][1], 1.05, 1.01, "lower"
    )


def _count(results: Results, size: str) -> int:
    return max(6, REQUESTS[size] // 5) if results.quick else REQUESTS[size]
