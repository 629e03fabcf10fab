"""Start the whole chain on this machine: `python -m loadtests.stack demo|up`."""

import argparse
import asyncio
import json
import os
import shutil
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import Final, NoReturn

from rich.console import Console
from rich.markup import escape

from loadtests.stack import demo
from loadtests.stack.chain import Chain
from loadtests.stack.chain_options import ChainOptions
from loadtests.stack.envoy_binary import EnvoyConfigError
from loadtests.stack.model_source import ModelError, resolve
from loadtests.stack.processes import StartError

RUNS_FOLDER: Final = Path(".stack")
RUNS_KEPT: Final = 10
DESCRIPTION: Final = """\
Starts Envoy, tokenext, epp-adapter, NATS and Dynamo mocker workers (each with a front end beside it), all on
127.0.0.1 and random free ports. Nothing is downloaded: without --model, a small model of its own is used."""
EXAMPLES: Final = """\
examples:
  python -m loadtests.stack demo                   send conversations through the chain, show what happened
  python -m loadtests.stack demo --model Qwen/Qwen3-0.6B    the same with a tokenizer of the Hugging Face hub
  python -m loadtests.stack up --workers 2         keep it running; Ctrl-C ends it"""


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m loadtests.stack",
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="demo|up")
    for name, says in (
        ("demo", "start it, send conversations through it, print a table and one JSON line, and end it"),
        ("up", "start it, print how to use it, and keep it running until Ctrl-C"),
    ):
        command = commands.add_parser(name, help=says, description=says)
        command.add_argument(
            "--model", metavar="DIR|ID", help="model directory or hub id (default: the stack's own model)"
        )
        command.add_argument(
            "--workers", type=_positive, default=3, metavar="N", help="Dynamo workers (default: %(default)s)"
        )
        command.add_argument(
            "--tokenext",
            type=_positive,
            default=1,
            metavar="N",
            help="its processes (default: %(default)s)",
        )
        command.add_argument(
            "--logs", type=Path, metavar="DIR", help=f"folder for logs (default: a new one in {RUNS_FOLDER})"
        )
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit codes: 0 all held, 1 something did not, 2 cannot be started as asked."""
    options = parse(sys.argv[1:] if arguments is None else arguments)
    console = Console(width=None if sys.stdout.isatty() else 120, highlight=False)
    signal.signal(signal.SIGTERM, _terminated)
    try:
        chain_options = ChainOptions(
            model=resolve(options.model),
            workers=options.workers,
            tokenext_processes=options.tokenext,
            # The pace of a real model, so that streaming looks as it does in life.
            mocker_arguments=("--speedup-ratio", "1"),
        )
        logs = options.logs or _new_run_folder()
        logs.mkdir(parents=True, exist_ok=True)
        return _run(options.command, chain_options, logs, console)
    except (ModelError, FileNotFoundError, EnvoyConfigError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except StartError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        console.print("stopped")
        return 0 if options.command == "up" else 130


def _run(command: str, options: ChainOptions, logs: Path, console: Console) -> int:
    started = time.monotonic()
    console.print(f"Starting {options.workers} workers and the chain; logs in {escape(str(logs))}")

    def ready(name: str) -> None:
        console.print(f"  {time.monotonic() - started:5.1f} s  {name} is ready", style="dim")

    with Chain(options, logs=logs, on_progress=ready) as chain:
        if command == "demo":
            return _demo(chain, console)
        _up(chain, console)
        while True:
            for process in chain.processes.values():
                if not process.running:
                    raise StartError(f"{process.name} ended; see {process.log}")
            time.sleep(0.5)


def _demo(chain: Chain, console: Console) -> int:
    with console.status("Sending conversations through Envoy ...") as status:
        count = 0

        def sent() -> None:
            nonlocal count
            count += 1
            status.update(f"Sending conversations through Envoy ... {count} requests answered")

        rows = asyncio.run(demo.run(chain, sent))
    console.print(demo.table(rows))
    for row in rows:
        if not row.ok:
            console.print(f"{row.conversation}, turn {row.turn + 1}: {row.status} {row.error}", markup=False)
    summary, everything = demo.summarise(rows)
    console.print(f"Conversations began on {demo.spread(rows)} of {len(chain.workers)} workers.")
    console.print(
        f"{summary.prefix_routed_to_same_worker} of {sum(row.follow_up for row in rows)} later turns "
        "went to the worker that holds the turns before."
    )
    if not everything:
        console.print(f"Not everything held; logs are in {escape(str(chain.logs))}", style="red")
    print(summary.as_json(), flush=True)
    return 0 if everything else 1


def _up(chain: Chain, console: Console) -> None:
    body = json.dumps(
        {
            "model": chain.options.model.name,
            "messages": [{"role": "user", "content": "Hello! Can you help me plan a weekend?"}],
            "max_tokens": 32,
        }
    )
    console.print("The chain is up. Try:")
    print(f"\n  curl -s {chain.url}/v1/chat/completions -H 'content-type: application/json' -d '{body}'\n")
    for name, url in chain.admin_urls.items():
        console.print(f"  {name:<12} {url}", markup=False)
    for worker in chain.workers:
        console.print(
            f"  worker-{worker.index:<5} http://{worker.address}  instance {worker.instance_id}", markup=False
        )
    console.print(f"  access log   {chain.access_log.path}", markup=False)
    console.print("Ctrl-C ends it.")


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a number of 1 or more")
    return int(text)


def _new_run_folder() -> Path:
    """A folder of its own for this run; the oldest runs go."""
    if RUNS_FOLDER.is_dir():
        runs = sorted(each for each in RUNS_FOLDER.iterdir() if each.name.startswith("run-"))
        for old in runs[: max(0, len(runs) - RUNS_KEPT + 1)]:
            shutil.rmtree(old, ignore_errors=True)
    return RUNS_FOLDER / f"run-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}"


def _terminated(number: int, frame: FrameType | None) -> NoReturn:
    del frame
    sys.exit(128 + number)


if __name__ == "__main__":
    sys.exit(main())
