"""`python -m loadtests.compare`: see `--help`."""

import argparse
import os
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.progress import Progress

from loadtests.bench.model_choice import HELP, choose
from loadtests.bench.processes_cost import cpu_by_kind, memory_by_kind
from loadtests.compare.contenders import CONTENDERS
from loadtests.load import corpus, record, samples
from loadtests.load.arguments import above_zero, count
from loadtests.load.corpus import CorpusError
from loadtests.load.locust_run import Run, send
from loadtests.load.record import Round, TargetRecord
from loadtests.load.target import Target, TargetError, check
from loadtests.load.workloads import WORKLOADS
from loadtests.stack.chain import Chain
from loadtests.stack.envoy_binary import EnvoyConfigError
from loadtests.stack.model_source import ModelError
from loadtests.stack.processes import StartError

RUNS: Final = Path(".load")
ROUND_SECONDS: Final = 600  # no round may hang
DESCRIPTION: Final = """\
Sends one seeded workload to several targets, each a local stack of its own with workers of its own. They
take turns: every target gets the same requests, round by round, in an order that moves on, so that a slow
moment of the machine and the warmth of its caches meet all alike. Leaves a folder for
`python -m loadtests.report`; the last line sums it up."""
EXAMPLES: Final = """\
examples:
  python -m loadtests.compare                                 all targets, about ten minutes
  python -m loadtests.compare envoy chain-dynamo --rounds 2 --model own
  python -m loadtests.report .load/THE-FOLDER                 then

exit status: 0 no request failed, 1 some did, 2 it could not begin (one line says why)"""


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parse(arguments)
    console = Console(stderr=True, highlight=False)
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    try:
        said = corpus.load(options.corpus) if options.corpus else corpus.own()
        model = choose(options.model)
        folder = options.out or RUNS / time.strftime(f"%Y%m%d-%H%M%S-{os.getpid()}-compare")
        folder.mkdir(parents=True, exist_ok=True)
        with ExitStack() as opened:
            chains: dict[str, Chain] = {}
            for name in options.targets:
                console.print(f"[dim]starting[/dim] {name}")
                settings = CONTENDERS[name].chain_options(
                    model, workers=options.workers, speedup=options.speedup, blocks=options.blocks
                )
                chains[name] = opened.enter_context(Chain(settings, logs=folder / name))
                check(Target(chains[name].url, model.name))
            targets = _compare(options, chains, folder, console)
    except (CorpusError, TargetError, ModelError, EnvoyConfigError, StartError, OSError) as error:
        print(f"compare: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    told = {name: value for name, value in vars(options).items() if name not in ("out", "targets")}
    told |= {"corpus": said.name, "model": model.name}
    record.write(folder, "One workload, several targets", told, targets)
    return _sum_up(folder, targets)


def _compare(
    options: argparse.Namespace, chains: Mapping[str, Chain], folder: Path, console: Console
) -> tuple[TargetRecord, ...]:
    rounds: dict[str, list[Round]] = {name: [] for name in chains}
    names = list(chains)
    with Progress(console=console, transient=True) as progress:
        shown = progress.add_task("", total=(options.rounds + 1) * len(names))
        for number in range(options.rounds + 1):
            for name in names[number % len(names) :] + names[: number % len(names)]:
                what = f"round {number} of {options.rounds}" if number else "warming up"
                progress.update(shown, description=f"{what}: {name}")
                done = _round(options, chains[name], folder / name, number)
                if number:
                    rounds[name].append(done)
                progress.advance(shown)
    return tuple(
        TargetRecord(
            name,
            CONTENDERS[name].says,
            tuple(rounds[name]),
            {kind: round(size, 1) for kind, size in memory_by_kind(chain.processes).items()},
        )
        for name, chain in chains.items()
    )


def _round(options: argparse.Namespace, chain: Chain, folder: Path, number: int) -> Round:
    """Round 0 warms up: no report reads it."""
    path = folder / f"round-{number}.jsonl"
    run = Run(
        samples=path,
        workload=options.workload,
        users=options.users,
        seconds=ROUND_SECONDS,
        seed=options.seed * 1_000 + number,
        think_seconds=options.think_seconds,
        max_tokens=options.max_tokens,
        asks=options.asks,
        corpus=options.corpus,
    )
    before = cpu_by_kind(chain.processes)
    started = time.monotonic()
    send(run, Target(chain.url, chain.options.model.name), folder)
    seconds = time.monotonic() - started
    after = cpu_by_kind(chain.processes)
    spent = {kind: round(value - before.get(kind, 0.0), 4) for kind, value in after.items()}
    return Round(f"{folder.name}/{path.name}", round(seconds, 3), spent)


def _sum_up(folder: Path, targets: Sequence[TargetRecord]) -> int:
    total = failed = 0
    for target in targets:
        for each in target.rounds:
            for sample in samples.read(folder / each.samples):
                total += 1
                failed += bool(sample.failure)
    print(f"compare: {len(targets)} targets, {total} requests, {failed} failed; {folder}")
    return 1 if failed or not total else 0


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m loadtests.compare",
        description=DESCRIPTION,
        epilog="targets:\n"
        + "\n".join(f"  {name:22} {each.says}" for name, each in CONTENDERS.items())
        + f"\n\n{EXAMPLES}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("targets", nargs="*", metavar="TARGET", help="which (all)")
    add("--model", default="qwen3", help=HELP)
    add("--workload", choices=list(WORKLOADS), default="mixed", help="what users do (%(default)s)")
    add("--users", type=count, default=6, metavar="N", help="at once (%(default)s)")
    add("--asks", type=count, default=8, metavar="N", help="requests of a user in a round (%(default)s)")
    add("--rounds", type=count, default=5, metavar="N", help="that count (%(default)s)")
    add("--think-seconds", type=float, default=0.5, metavar="S", help="mean pause of a user (%(default)s)")
    add("--max-tokens", type=count, default=32, metavar="N", help="of each reply (%(default)s)")
    add("--seed", type=int, default=1, metavar="N", help="of everything that is drawn (%(default)s)")
    add("--corpus", type=Path, metavar="FILE", help="conversations, ShareGPT-style JSON (a small own corpus)")
    add("--workers", type=count, default=2, metavar="N", help="of each target (%(default)s)")
    add("--speedup", type=above_zero, default=1.0, metavar="X",
        help="of the mocker against its own model of a GPU (%(default)s)")  # fmt: skip
    add("--blocks", type=count, default=8_192, metavar="N", help="of a worker's cache (%(default)s)")
    add("--out", type=Path, metavar="DIR", help="for results (a new folder in .load)")
    options = parser.parse_args(arguments)
    options.targets = options.targets or list(CONTENDERS)
    if unknown := [name for name in options.targets if name not in CONTENDERS]:
        parser.error(f"no target {unknown[0]!r}: take some of {', '.join(CONTENDERS)}")
    return options


if __name__ == "__main__":
    sys.exit(main())
