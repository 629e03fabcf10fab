"""`python -m loadtests.bench.observability`: see `--help`."""

import argparse
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from random import Random
from statistics import median

from rich.console import Console
from rich.table import Table

from loadtests.bench.http import Connection
from loadtests.bench.processes_cost import cpu_seconds
from loadtests.bench.results import Ratio, Results
from loadtests.bench.workload import workload
from loadtests.stack.chain import Chain, ChainOptions, StartError, Upstream
from loadtests.stack.trace_collector import serve_collector

FOLDER = Path("loadtests/results")
PATH = "/v1/chat/completions?brief=1"
CHARS_PER_TOKEN = 4.0
BARE, DEFAULT, OFFERED, TRACED = "none", "defaults", "tracing, not sampled", "tracing, all sampled"
MUST, AIM = 1.05, 1.02
SERVICES = ("tokenext", "epp-adapter", "envoy")
DESCRIPTION = """\
What it costs to be watched: CPU per request of the whole chain (Envoy, tokenext, picker; not the model
servers), in four settings side by side. "none" has no admin port, so that nothing is counted, and writes no
line per request; "defaults" has metrics, the status page and one log line per request in each service; the
others send traces to a collector besides, for none and for all of the requests. Batches go to all in turn, in
an order drawn anew for each round; the ratio is the median over rounds. Writes observability.json."""
EXAMPLES = """\
examples:
  python -m loadtests.bench.observability               about two minutes
  python -m loadtests.bench.observability --rounds 20   a quick look

exit status: 0 the bound holds, 1 it is missed or a process did not start"""


def settings(name: str, collector: str) -> tuple[dict[str, object], dict[str, object]]:
    """What replaces keys of the settings files of tokenext and of the picker."""
    if name == BARE:
        silent: dict[str, object] = {"admin": None, "log": {"exchange_ratio": 0.0}}
        return silent, silent
    if name == DEFAULT:
        return {}, {}
    tracing = {"tracing": {"endpoint": collector, "sample_ratio": 1.0 if name == TRACED else 0.0}}
    return dict(tracing), dict(tracing)


def measure(
    chains: Mapping[str, Chain], bodies: Sequence[bytes], *, rounds: int, batch: int
) -> dict[str, dict[str, list[float]]]:
    """Milliseconds of CPU per request, by chain and service, one figure for each round.

    The first round warms up and does not count. Raises RuntimeError for an answer that is not 200.
    """
    spent: dict[str, dict[str, list[float]]] = {name: {each: [] for each in SERVICES} for name in chains}
    order = Random(1)
    with ExitStack() as opened:
        connections = {name: opened.enter_context(Connection(chain.url)) for name, chain in chains.items()}
        for number in range(rounds + 1):
            names = list(chains)
            order.shuffle(names)
            asked = [bodies[(number * batch + each) % len(bodies)] for each in range(batch)]
            for name in names:
                before = _cpu(chains[name])
                for body in asked:
                    answer = connections[name].post(PATH, body)
                    if answer.status != 200:
                        raise RuntimeError(f"{name}: status {answer.status}")
                after = _cpu(chains[name])
                if number:
                    for each in SERVICES:
                        spent[name][each].append((after[each] - before[each]) / batch * 1e3)
    return spent


def _cpu(chain: Chain) -> dict[str, float]:
    return {
        each: cpu_seconds([process.pid for name, process in chain.processes.items() if name.startswith(each)])
        for each in SERVICES
    }


def ratio(
    ours: Mapping[str, list[float]], theirs: Mapping[str, list[float]], services: Sequence[str]
) -> float:
    """Of CPU per request, round by round; the median of all rounds."""
    pairs = zip(
        zip(*(ours[each] for each in services), strict=True),
        zip(*(theirs[each] for each in services), strict=True),
        strict=True,
    )
    return median(sum(a) / sum(b) for a, b in pairs)


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parse(arguments)
    results = Results(quick=options.rounds < 20, model="")
    table = Table("tokens", "", *SERVICES, "chain", "by none", title="CPU ms per request")
    figures: dict[str, object] = {}
    with (
        tempfile.TemporaryDirectory(prefix="observability-") as folder,
        serve_collector() as (url, collected),
    ):
        try:
            with ExitStack() as opened:
                chains = {}
                for number, name in enumerate((BARE, DEFAULT, OFFERED, TRACED)):
                    of_tokenext, of_picker = settings(name, url)
                    made = ChainOptions(
                        upstream=Upstream.ROUTED_ECHO,
                        workers=2,
                        mocker_arguments=("--speedup-ratio", "1000", "--num-gpu-blocks-override", "65536"),
                        tokenext_settings=of_tokenext,
                        epp_settings=of_picker,
                    )
                    chains[name] = opened.enter_context(Chain(made, logs=Path(folder) / str(number)))
                for tokens in options.tokens:
                    bodies = [
                        ask.body
                        for ask in workload(
                            chains[BARE].options.model.name, "multi-turn", tokens, 60,
                            chars_per_token=CHARS_PER_TOKEN,
                        )
                    ]  # fmt: skip
                    spent = measure(chains, bodies, rounds=options.rounds, batch=options.batch)
                    figures[str(tokens)] = _tell(tokens, spent, results, table)
        except StartError as error:
            print(f"bench-observability: {error}", file=sys.stderr)
            return 1
    results.measurements["cpu_ms_per_request"] = figures
    results.measurements["spans_collected"] = collected.count
    results.write(options.out / "observability.json")
    console = Console(width=None if sys.stdout.isatty() else 120)
    console.print(table)
    results.show(console)
    print(results.summary("bench-observability"))
    return 1 if results.misses else 0


def _tell(
    tokens: int, spent: Mapping[str, Mapping[str, list[float]]], results: Results, table: Table
) -> dict[str, object]:
    told: dict[str, object] = {}
    for name, of in spent.items():
        medians = {each: median(of[each]) for each in SERVICES}
        total = median(sum(each) for each in zip(*of.values(), strict=True))
        whole = ratio(of, spent[BARE], SERVICES)
        table.add_row(
            str(tokens), name, *(f"{each:.3f}" for each in medians.values()), f"{total:.3f}", f"{whole:.3f}"
        )
        told[name] = {
            **{each: round(value, 4) for each, value in medians.items()},
            **{f"{each}, by none": round(ratio(of, spent[BARE], [each]), 4) for each in SERVICES},
        }
    results.ratios[f"{tokens} tokens: CPU per request at defaults, by none"] = Ratio(
        ratio(spent[DEFAULT], spent[BARE], SERVICES), MUST, AIM, "lower"
    )
    return told


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m loadtests.bench.observability",
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--tokens", type=int, nargs="+", default=[1_000, 8_000], metavar="N",
                        help="of each prompt (%(default)s)")  # fmt: skip
    parser.add_argument("--rounds", type=int, default=120, metavar="N", help="that count (%(default)s)")
    parser.add_argument("--batch", type=int, default=10, metavar="N", help="requests (%(default)s)")
    parser.add_argument("--out", type=Path, default=FOLDER, metavar="DIR", help="for results (%(default)s)")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
