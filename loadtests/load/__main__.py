"""`python -m loadtests.load`: see `--help`."""

import argparse
import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from loadtests.load import corpus, results
from loadtests.load.target import Target, TargetError, check
from loadtests.load.workloads import WORKLOADS
from loadtests.stack.chain import Chain, ChainOptions
from loadtests.stack.envoy_binary import EnvoyConfigError
from loadtests.stack.model_source import ModelError, resolve
from loadtests.stack.processes import StartError

RUNS: Final = Path(".load")
LOCUSTFILE: Final = Path(__file__).resolve().parents[1] / "locustfile.py"
GRACE_SECONDS: Final = 60.0  # for the requests that are under way when the time is over
DESCRIPTION: Final = """\
Sends what users would send, with locust, to the local stack (started for it: Envoy, tokenext, epp-adapter,
Dynamo's mocker workers) or to any server that speaks OpenAI's API. Leaves a folder with what was asked, on
which machine, and what came of it; the last line sums it up."""
EXAMPLES: Final = """\
examples:
  python -m loadtests.load                                  two minutes of everything, local stack
  python -m loadtests.load --workload shared --users 32 --seconds 60
  python -m loadtests.load --host https://gateway.example --model qwen3 --corpus sharegpt.json
  python -m loadtests.load --ui                             locust's own page, before the local stack

exit status: 0 no request failed, 1 some did or none was answered, 2 it could not begin (one line says why)"""


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parse(arguments)
    console = Console(stderr=True, highlight=False)
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    try:
        said = corpus.load(options.corpus) if options.corpus else corpus.own()
        folder = options.out or RUNS / time.strftime(f"%Y%m%d-%H%M%S-{os.getpid()}")
        folder.mkdir(parents=True, exist_ok=True)
        with _target(options, folder, console) as target:
            check(target)
            console.print(
                f"{options.workload}, {options.users} users, on {target.url} ({target.model}); {folder}"
            )
            if options.ui:
                return subprocess.run(
                    _locust(options, target, folder, headless=False), check=False
                ).returncode
            _run(options, target, folder, console)
    except (corpus.CorpusError, TargetError, ModelError, EnvoyConfigError, OSError) as error:
        print(f"load: {error}", file=sys.stderr)
        return 2
    except StartError as error:
        print(f"load: the local stack did not start: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    try:
        report = results.read(folder, {**_told(options), "model": target.model, "corpus": said.name})
    except results.ResultsError as error:
        print(f"load: no request was sent: {error}; see {folder / 'locust.log'}", file=sys.stderr)
        return 1
    report.write(folder / "results.json")
    Console(width=None if sys.stdout.isatty() else 120).print(report.table())
    print(report.summary())
    return 0 if report.clean else 1


@contextlib.contextmanager
def _target(options: argparse.Namespace, folder: Path, console: Console) -> Iterator[Target]:
    """What is asked; the local stack is started for it, and ends with it."""
    if options.host:
        yield Target(options.host.rstrip("/"), options.model)
        return
    chain_options = ChainOptions(
        model=resolve(options.model), workers=options.workers, mocker_arguments=("--speedup-ratio", "10")
    )
    with console.status("starting the local stack ..."), contextlib.ExitStack() as opened:
        chain = opened.enter_context(Chain(chain_options, logs=folder / "stack"))
        kept = opened.pop_all()
    with kept:
        yield Target(chain.url, chain.options.model.name)


def _locust(options: argparse.Namespace, target: Target, folder: Path, *, headless: bool) -> list[str]:
    command = [sys.executable, "-m", "locust", "-f", str(LOCUSTFILE), "--host", target.url]
    command += ["--model", target.model, "--workload", options.workload, "--seed", str(options.seed)]
    command += ["--think-seconds", str(options.think_seconds), "--max-tokens", str(options.max_tokens)]
    command += ["--stream-share", str(options.stream_share), "--abort-share", str(options.abort_share)]
    command += ["--warm-up-seconds", str(options.warm_up_seconds), "--users", str(options.users)]
    command += ["--spawn-rate", str(options.spawn_rate or options.users)]
    if options.corpus:
        command += ["--corpus", str(options.corpus)]
    if headless:
        seconds = options.warm_up_seconds + options.seconds
        command += [
            "--headless",
            "--run-time",
            f"{seconds}s",
            "--stop-timeout",
            "30",
            "--exit-code-on-error",
            "0",
        ]
        command += ["--csv", str(folder / "locust"), "--csv-full-history", "--only-summary"]
    return command


def _run(options: argparse.Namespace, target: Target, folder: Path, console: Console) -> None:
    """Locust, and a bar that shows how far it is. Raises OSError where it cannot run."""
    seconds = options.warm_up_seconds + options.seconds
    repository = LOCUSTFILE.parents[1]
    environment = {**os.environ, "PYTHONPATH": f"{repository}:{repository / 'proto'}"}
    with (folder / "locust.log").open("wb") as log:
        process = subprocess.Popen(
            _locust(options, target, folder, headless=True), stdout=log, stderr=log, env=environment
        )
        try:
            columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
            with Progress(*columns, console=console, transient=True) as progress:
                bar = progress.add_task("sending", total=seconds)
                began = time.monotonic()
                while process.poll() is None and time.monotonic() - began < seconds + GRACE_SECONDS:
                    progress.update(bar, completed=min(time.monotonic() - began, seconds))
                    time.sleep(0.2)
        finally:
            if process.poll() is None:
                process.terminate()
            process.wait(timeout=GRACE_SECONDS)
    if process.returncode != 0:
        raise OSError(f"locust ended with {process.returncode}; see {folder / 'locust.log'}")


def _told(options: argparse.Namespace) -> dict[str, object]:
    return {
        name: value for name, value in vars(options).items() if name not in ("out", "ui", "corpus", "model")
    }


def _share(text: str) -> float:
    share = float(text)
    if not 0 <= share <= 1:
        raise argparse.ArgumentTypeError("a share from 0 to 1")
    return share


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError("a whole number of 1 or more")
    return int(text)


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
    add("--users", type=_positive, default=8, metavar="N", help="at once (%(default)s)")
    add("--spawn-rate", type=_positive, metavar="N", help="users that begin per second (all at once)")
    add("--seconds", type=_positive, default=120, metavar="N", help="that count (%(default)s)")
    add("--warm-up-seconds", type=int, default=5, metavar="N", help="before them (%(default)s)")
    add("--corpus", type=Path, metavar="FILE", help="conversations, ShareGPT-style JSON (a small own corpus)")
    add("--seed", type=int, default=1, metavar="N", help="of everything that is drawn (%(default)s)")
    add("--think-seconds", type=float, default=1.0, metavar="S", help="mean pause of a user (%(default)s)")
    add("--stream-share", type=_share, default=1.0, metavar="X", help="of replies (%(default)s)")
    add(
        "--abort-share",
        type=_share,
        default=0.0,
        metavar="X",
        help="of streams, that the client leaves (%(default)s)",
    )
    add("--max-tokens", type=_positive, default=64, metavar="N", help="of each reply (%(default)s)")
    add("--workers", type=_positive, default=2, metavar="N", help="of the local stack (%(default)s)")
    add("--out", type=Path, metavar="DIR", help="for results (a new folder in .load)")
    add("--ui", action="store_true", help="serve locust's page on http://127.0.0.1:8089 and wait there")
    options = parser.parse_args(arguments)
    if options.host and not options.model:
        parser.error("--host needs --model: the name that the server knows the model by")
    return options


if __name__ == "__main__":
    sys.exit(main())
