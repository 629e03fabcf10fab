"""`python -m loadtests.capacity`: see `--help`."""

import argparse
import json
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.table import Table

from loadtests.bench.http import Connection
from loadtests.bench.model_choice import HELP, choose
from loadtests.bench.processes_cost import cpu_by_kind
from loadtests.bench.prose import chat_body, prose
from loadtests.bench.results import machine
from loadtests.capacity.offered import Offered, Send, offer, slices
from loadtests.capacity.search import Search
from loadtests.load.results import percentile
from loadtests.stack.chain import Chain, ChainOptions, Part, Upstream
from loadtests.stack.envoy_binary import EnvoyConfigError
from loadtests.stack.model_source import Model, ModelError
from loadtests.stack.processes import StartError

FOLDER: Final = Path("loadtests/results")
TOKENS: Final[Mapping[str, int]] = {"headers-only": 0, "8k": 8_000, "32k": 32_000}
START_RATE: Final[Mapping[str, float]] = {"headers-only": 100, "8k": 40, "32k": 20}
BODIES: Final = 1_500
CONNECTIONS: Final = 16
CHARS_PER_TOKEN: Final = 4.6  # of prose(), with the Qwen3 tokenizer
OURS: Final = ("envoy", "tokenext", "epp-adapter")
DESCRIPTION: Final = """\
Finds the highest rate of requests that the chain carries on this machine: the rate is doubled, then the gap
halved, while the 95th percentile of what the chain adds to plain Envoy's latency at that rate stays within a
bound and every request is answered. Both stand in front of echo servers, so that only their own work counts.
Prompts are new: no prefix helps. Client, Envoy and all services share the machine's cores."""
EXAMPLES: Final = """\
examples:
  python -m loadtests.capacity                                      about six minutes
  python -m loadtests.capacity --workloads 8k --processes 1 --added-ms 50

exit status: 0 each workload has a rate, 1 one has none, 2 it could not begin (one line says why)"""


@dataclass(frozen=True, slots=True)
class Step:
    """One rate. `added_p95_ms` is None where nothing was answered."""

    rate: float
    carried: bool
    achieved: float
    failed: int
    p50_ms: float | None
    p95_ms: float | None
    added_p95_ms: float | None
    cpu_ms_per_request: Mapping[str, float]


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parse(arguments)
    console = Console(stderr=True, highlight=False)
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    found: dict[str, dict[str, object]] = {}
    table = Table(
        "tokenext processes", "workload", "requests/s", "added p95 ms", "CPU ms per request",
        "requests/s/core", title=f"Highest rate with at most {options.added_ms:g} ms added (p95)",
    )  # fmt: skip
    try:
        model = choose(options.model)
        with ExitStack() as opened:
            chains = _start(model, options.processes, FOLDER / "logs", opened, console)
            sends = {name: _sends(model, name) for name in options.workloads}
            for number in options.processes:
                for name in options.workloads:
                    what = f"{number} tokenext, {name}"
                    steps = _climb(
                        options,
(chains[0], chains[number]), sends[name], START_RATE[name],
                        lambda step, what=what: console.print(f"[dim]{what}[/dim] {_told(step)}"),
                    )  # fmt: skip
                    found[what] = _row(table, number, name, steps)
    except (ModelError, EnvoyConfigError, StartError, OSError) as error:
        print(f"capacity: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    options.out.mkdir(parents=True, exist_ok=True)
    told = {
        "added_ms": options.added_ms,
        "seconds": options.seconds,
        "connections": CONNECTIONS,
        "tokens": TOKENS,
    }
    document = {"machine": machine(), "model": model.name, "parameters": told, "found": found}
    (options.out / "capacity.json").write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    Console(width=None if sys.stdout.isatty() else 120).print(table)
    rates = ", ".join(f"{what} {row['requests_per_second']:.0f}/s" for what, row in found.items())
    print(f"capacity: {rates}")
    return 0 if all(row["requests_per_second"] for row in found.values()) else 1


def _start(
    model: Model, processes: Sequence[int], logs: Path, opened: ExitStack, console: Console
) -> Mapping[int, Chain]:
    """Plain Envoy as 0, and the chain by its number of tokenext processes."""
    chains = {}
    for number in (0, *processes):
        console.print(f"[dim]starting[/dim] {f'{number} tokenext' if number else 'plain Envoy'}")
        options = (
            ChainOptions(
                model=model,
                workers=2,
                upstream=Upstream.ROUTED_ECHO,
                mocker_arguments=("--speedup-ratio", "1000"),
                tokenext_processes=number,
            )
            if number
            else ChainOptions(
                model=model, workers=2, upstream=Upstream.ECHO, tokenext=Part.ABSENT, epp=Part.ABSENT
            )
        )
        chains[number] = opened.enter_context(Chain(options, logs=logs / f"capacity-{number}"))
    return chains


def _sends(model: Model, workload: str) -> Send:
    """What sends request number N of a workload."""
    if not TOKENS[workload]:
        return lambda connection, _: connection.get("/v1/models").status
    chars = round(TOKENS[workload] * CHARS_PER_TOKEN)
    texts = slices(prose(TOKENS[workload], chars + 1_000_000), chars, BODIES)
    bodies = [
        json.dumps(chat_body(model.name, [{"role": "user", "content": text}])).encode() for text in texts
    ]

    def send(connection: Connection, number: int) -> int:
        return connection.post("/v1/chat/completions?brief=1", bodies[number % BODIES]).status

    return send


def _climb(
    options: argparse.Namespace,
    stacks: tuple[Chain, Chain],
    send: Send,
    start: float,
    on_step: Callable[[Step], None],
) -> list[Step]:
    """`stacks`: plain Envoy, and what is searched."""
    plain, chain = stacks
    search, steps, sent = Search(start), [], 0
    while (rate := search.next_rate) is not None:
        first = sent

        def numbered(connection: Connection, number: int, first: int = first) -> int:
            return send(connection, first + number)  # no step sends what the one before it has sent

        baseline = offer(plain.url, numbered, rate=rate, seconds=options.seconds / 2, connections=CONNECTIONS)
        before = cpu_by_kind(chain.processes)
        offered = offer(chain.url, numbered, rate=rate, seconds=options.seconds, connections=CONNECTIONS)
        after = cpu_by_kind(chain.processes)
        sent += round(rate * options.seconds)
        spent = {kind: after[kind] - before.get(kind, 0.0) for kind in OURS}
        step = _step(offered, baseline, spent, options.added_ms)
        search.tell(rate, carried=step.carried)
        steps.append(step)
        on_step(step)
    return steps


def _step(offered: Offered, baseline: Offered, spent: Mapping[str, float], bound_ms: float) -> Step:
    median, high, plain = (
        percentile(values, percent)
        for values, percent in (
            (offered.latencies, 50),
            (offered.latencies, 95),
            (baseline.latencies, 95),
        )
    )
    added = None if high is None or plain is None else (high - plain) * 1e3
    count = len(offered.latencies)
    return Step(
        rate=offered.rate,
        carried=not offered.failed and added is not None and added <= bound_ms,
        achieved=round(offered.achieved, 1),
        failed=offered.failed,
        p50_ms=None if median is None else round(median * 1e3, 2),
        p95_ms=None if high is None else round(high * 1e3, 2),
        added_p95_ms=None if added is None else round(added, 2),
        cpu_ms_per_request={kind: round(value / max(1, count) * 1e3, 3) for kind, value in spent.items()},
    )


def _told(step: Step) -> str:
    mark = "[green]carried[/green]" if step.carried else "[red]too much[/red]"
    added = "nothing answered" if step.added_p95_ms is None else f"{step.added_p95_ms:.1f} ms added (p95)"
    failed = f", {step.failed} failed" if step.failed else ""
    return f"{step.rate:.0f}/s: {mark}, {added}{failed}"


def _row(table: Table, processes: int, workload: str, steps: Sequence[Step]) -> dict[str, object]:
    carried = [step for step in steps if step.carried]
    best = max(carried, key=lambda step: step.rate, default=None)
    cpu = sum(best.cpu_ms_per_request.values()) if best else 0.0
    per_core = 1e3 / cpu if cpu else 0.0
    if best is None:
        table.add_row(str(processes), workload, "[red]none", "", "", "")
    else:
        parts = ", ".join(f"{kind} {value:.2f}" for kind, value in best.cpu_ms_per_request.items())
        table.add_row(
            str(processes), workload, f"{best.rate:.0f}", f"{best.added_p95_ms:.1f}",
            f"{cpu:.2f} ({parts})", f"{per_core:.0f}",
        )  # fmt: skip
    return {
        "requests_per_second": best.rate if best else 0.0,
        "requests_per_second_per_core": round(per_core, 1),
        "steps": [asdict(step) for step in steps],
    }


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m loadtests.capacity",
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--model", default="qwen3", help=HELP)
    add("--added-ms", type=float, default=20.0, metavar="MS", help="the bound (%(default)s)")
    add("--seconds", type=float, default=5.0, metavar="S", help="of each step (%(default)s)")
    add("--processes", type=int, nargs="+", default=[1, 2], metavar="N", help="of tokenext (1 2)")
    add("--workloads", nargs="+", choices=list(TOKENS), default=list(TOKENS), metavar="NAME",
        help=f"some of {', '.join(TOKENS)} (all)")  # fmt: skip
    add("--out", type=Path, default=FOLDER, metavar="DIR", help="for capacity.json (%(default)s)")
    options = parser.parse_args(arguments)
    if min(options.processes) < 1:
        parser.error("--processes: 1 or more")
    return options


if __name__ == "__main__":
    sys.exit(main())
