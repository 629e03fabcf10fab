"""`python -m loadtests.load`: see `--help`."""

import argparse
import contextlib
import os
import signal
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from rich.console import Console

from loadtests.bench.processes_cost import cpu_by_kind, memory_by_kind
from loadtests.load import corpus, record, results, samples, trace
from loadtests.load.arguments import above_zero, count, share
from loadtests.load.corpus import CorpusError
from loadtests.load.locust_run import Run, bar, send, show
from loadtests.load.record import Round, TargetRecord
from loadtests.load.target import Target, TargetError, check
from loadtests.load.trace import TraceError
from loadtests.load.workloads import WORKLOADS
from loadtests.stack.chain import Chain, ChainOptions
from loadtests.stack.envoy_binary import EnvoyConfigError
from loadtests.stack.model_source import ModelError, resolve
from loadtests.stack.processes import ManagedProcess, StartError

RUNS: Final = Path(".load")
DESCRIPTION: Final = """\
Sends what users would send, with locust, to the local stack (started for it: Envoy, tokenext, epp-adapter,
Dynamo's mocker workers) or to any server that speaks OpenAI's API. Leaves a folder with what was asked, on
which machine, and what came of it; the last line sums it up."""
EXAMPLES: Final = """\
examples:
  python -m loadtests.load                                  two minutes of everything, local stack
  python -m loadtests.load --workload shared --users 32 --seconds 60
  python -m loadtests.load --host https://gateway.example --model qwen3 --corpus sharegpt.json
  python -m loadtests.load --trace trace.jsonl --trace-speed 4 --users 64
  python -m loadtests.load --ui                             locust's own page, before the local stack

exit status: 0 no request failed, 1 some did or none was answered, 2 it could not begin (one line says why)"""


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parse(arguments)
    console = Console(stderr=True, highlight=False)
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    try:
        said = corpus.load(options.corpus) if options.corpus else corpus.own()
        entries = trace.read(options.trace) if options.trace else ()
        folder = options.out or RUNS / time.strftime(f"%Y%m%d-%H%M%S-{os.getpid()}")
        folder.mkdir(parents=True, exist_ok=True)
        with _target(options, folder, console) as (target, processes):
            check(target)
            what = f"trace {options.trace.name}" if options.trace else options.workload
            console.print(f"{what}, {options.users} users, on {target.url} ({target.model}); {folder}")
            run = _run(options, folder)
            if options.ui:
                return show(run, target)
            before, began = cpu_by_kind(processes), time.monotonic()
            with bar(console, run.total_seconds(entries)) as progress:
                send(run, target, folder, progress)
            done = Round(run.samples.name, time.monotonic() - began, _spent(before, processes))
            held = memory_by_kind(processes)
    except (CorpusError, TraceError, TargetError, ModelError, EnvoyConfigError, OSError) as error:
        print(f"load: {error}", file=sys.stderr)
        return 2
    except StartError as error:
        print(f"load: the local stack did not start: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    asked = {"model": target.model, "corpus": said.name, "trace": options.trace and options.trace.name}
    try:
        sent = list(samples.read(run.samples))
    except samples.SamplesError as error:
        print(f"load: no request was sent: {error}; see {folder / 'locust.log'}", file=sys.stderr)
        return 1
    seconds = run.total_seconds(entries) - run.warm_up_seconds
    report = results.of(sent, {**_told(options), **asked}, seconds=seconds)
    report.write(folder / "results.json")
    says = "the local stack" if processes else "a server that was running already"
    record.write(
        folder, "A load test", {**_told(options), **asked}, (TargetRecord(what, says, (done,), held),)
    )
    Console(width=None if sys.stdout.isatty() else 120).print(report.table())
    print(report.summary())
    return 0 if report.clean else 1


@contextlib.contextmanager
def _target(
    options: argparse.Namespace, folder: Path, console: Console
) -> Iterator[tuple[Target, Mapping[str, ManagedProcess]]]:
    """What is asked, and its processes; the local stack is started for it, and ends with it."""
    if options.host:
        yield Target(options.host.rstrip("/"), options.model), {}
        return
    chain_options = ChainOptions(
        model=resolve(options.model), workers=options.workers, mocker_arguments=("--speedup-ratio", "10")
    )
    with console.status("starting the local stack ..."), contextlib.ExitStack() as opened:
        chain = opened.enter_context(Chain(chain_options, logs=folder / "stack"))
        kept = opened.pop_all()
    with kept:
        yield Target(chain.url, chain.options.model.name), chain.processes


def _spent(before: Mapping[str, float], processes: Mapping[str, ManagedProcess]) -> dict[str, float]:
    return {kind: value - before.get(kind, 0.0) for kind, value in cpu_by_kind(processes).items()}


def _run(options: argparse.Namespace, folder: Path) -> Run:
    return Run(
        workload=options.workload,
        users=options.users,
        spawn_rate=options.spawn_rate,
        seconds=options.seconds,
        warm_up_seconds=0 if options.trace else options.warm_up_seconds,
        seed=options.seed,
        think_seconds=options.think_seconds,
        stream_share=options.stream_share,
        abort_share=options.abort_share,
        max_tokens=options.max_tokens,
        corpus=options.corpus,
        trace=options.trace,
        trace_speed=options.trace_speed,
        samples=folder / "samples.jsonl",
    )


def _told(options: argparse.Namespace) -> dict[str, object]:
    return {
        name: value
        for name, value in vars(options).items()
        if name not in ("out", "ui", "corpus", "model", "trace")
    }


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m loadtests.load",
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--host", default="", metavar="URL", help="ask this server (default: start the local stack)")
    add("--model", metavar="NAME", help="with --host: its name there; else a model directory or hub id")
    add("--workload", choices=list(WORKLOADS), default="mixed", help="what users do (%(default)s)")
    add("--users", type=count, default=8, metavar="N", help="at once (%(default)s)")
    add("--spawn-rate", type=count, metavar="N", help="users that begin per second (all at once)")
    add("--seconds", type=count, default=120, metavar="N", help="that count (%(default)s)")
    add("--warm-up-seconds", type=int, default=5, metavar="N", help="before them (%(default)s)")
    add("--corpus", type=Path, metavar="FILE", help="conversations, ShareGPT-style JSON (a small own corpus)")
    add("--trace", type=Path, metavar="FILE", help="replay this trace (Mooncake's form), not a workload")
    add("--trace-speed", type=above_zero, default=1.0, metavar="X", help="2: in half the time (%(default)s)")
    add("--seed", type=int, default=1, metavar="N", help="of everything that is drawn (%(default)s)")
    add("--think-seconds", type=float, default=1.0, metavar="S", help="mean pause of a user (%(default)s)")
    add("--stream-share", type=share, default=1.0, metavar="X", help="of replies (%(default)s)")
    add(
        "--abort-share",
        type=share,
        default=0.0,
        metavar="X",
        help="of streams, that the client leaves (%(default)s)",
    )
    add("--max-tokens", type=count, default=64, metavar="N", help="of each reply (%(default)s)")
    add("--workers", type=count, default=2, metavar="N", help="of the local stack (%(default)s)")
    add("--out", type=Path, metavar="DIR", help="for results (a new folder in .load)")
    add("--ui", action="store_true", help="serve locust's page on http://127.0.0.1:8089 and wait there")
    options = parser.parse_args(arguments)
    if options.host and not options.model:
        parser.error("--host needs --model: the name that the server knows the model by")
    return options


if __name__ == "__main__":
    sys.exit(main())
