"""The chain in front of a real vLLM: are our ids those that vLLM computes, and does it use them?"""

import argparse
import asyncio
import json
import shutil
import signal
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import Final, NoReturn

from loadtests.stack.chain import Chain
from loadtests.stack.envoy_binary import EnvoyConfigError
from loadtests.stack.envoy_config import TcpAddress
from loadtests.stack.probes import LOOPBACK, free_ports
from loadtests.stack.processes import StartError, Supervisor
from tests.e2e_vllm import asking, cases, environment, model, report, verifying, vllm_server
from tests.e2e_vllm.comparison import Judged, Seen, judge, judge_foreign
from tests.e2e_vllm.request import Request
from tests.parity.fetch import FetchError

REPOSITORY: Final = Path(__file__).resolve().parents[2]
CACHE: Final = REPOSITORY / ".cache" / "e2e-vllm"
PAGE: Final = REPOSITORY / "docs" / "e2e-vllm.md"
START_SECONDS: Final = 600.0
TURNS: Final = 6
LONG: Final = "The keepers of the lighthouse wrote down every ship that passed, its flag and its hour. " * 8
NOTES: Final = """\
The first run installs vLLM for the CPU into .cache/e2e-vllm (2.5 GB of disk, some minutes) and makes a small
model with random weights on a real tokenizer; later runs take four minutes. All traffic stays on 127.0.0.1. A
run that passes writes docs/e2e-vllm.md.

exit status: 0 passed, 1 something did not hold, 2 it cannot be run here
"""


def main(arguments: Sequence[str] | None = None) -> int:
    options = _options(arguments)
    started = time.monotonic()

    def say(what: str) -> None:
        print(f"{time.monotonic() - started:6.1f} s  {what}", flush=True)

    signal.signal(signal.SIGTERM, _terminated)
    try:
        vllm = environment.prepare(options.cache / "venv", say)
        folders = model.make(options.cache, vllm, say)
        run = _run(options, vllm, folders, say)
    except (environment.InstallError, FetchError, EnvoyConfigError, FileNotFoundError) as error:
        print(f"e2e-vllm: {error}", file=sys.stderr)
        return 2
    except StartError as error:
        print(f"e2e-vllm: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("e2e-vllm: stopped", file=sys.stderr)
        return 130
    print("\n" + report.plain(run) + "\n")
    _keep(run.mismatches, options.cache / "mismatches.json")
    for problem in report.problems(run):
        print(problem)
    if report.holds(run):
        PAGE.write_text(report.markdown(run, datetime.now(UTC).date().isoformat()), "utf-8")
    print(report.summary(run), flush=True)
    return 0 if report.holds(run) else 1


def _run(
    options: argparse.Namespace,
    vllm: environment.VllmEnvironment,
    folders: model.ModelFolders,
    say: environment.Report,
) -> report.Run:
    logs = options.cache / "logs"
    shutil.rmtree(logs, ignore_errors=True)
    port = options.vllm_port or free_ports(1)[0]
    requests = [*cases.families(options.seed), *cases.corpus(options.seed, options.generated)]
    foreign = list(cases.foreign(options.seed))
    supervisor = Supervisor(logs)
    try:
        if options.vllm_port is None:
            say("starting vLLM")
            supervisor.start(vllm_server.spec(vllm, folders.engine, port, options.cache / "vllm"))
            supervisor.wait_ready(
                supervisor.processes.values(),
                deadline_seconds=START_SECONDS,
                on_ready=lambda name: say(f"{name} is ready"),
            )
        say("tokenext verify")
        probed = asyncio.run(verifying.reports(folders.bundle, f"http://{LOOPBACK}:{port}"))
        chain = asking.chain_options(folders.bundle, TcpAddress(LOOPBACK, port))
        with Chain(chain, logs=logs / "chain", on_progress=lambda name: say(f"{name} is ready")) as running:
            seen = _asked(running, port, requests, say)
            turns = asyncio.run(asking.conversation(running.url, TURNS, LONG))
        say("the same chain, with ids that vLLM would never make")
        chain = asking.chain_options(folders.other, TcpAddress(LOOPBACK, port))
        with Chain(chain, logs=logs / "chain-other") as running:
            seen_foreign = _asked(running, port, foreign, say)
        for process in supervisor.processes.values():
            if not process.running:
                raise StartError(f"{process.name} ended; the end of its log:\n{process.tail()}")
    finally:
        # Given time, it leaves no shared memory behind.
        supervisor.stop(vllm_server.STOP_SECONDS)
    return report.Run(
        vllm.versions(),
        options.seed,
        [judge(each) for each in seen],
        [judge_foreign(each) for each in seen_foreign],
        turns,
        probed,
    )


def _asked(chain: Chain, vllm_port: int, requests: Sequence[Request], say: environment.Report) -> list[Seen]:
    def progress(done: int) -> None:
        if done % 100 == 0 or done == len(requests):
            say(f"{done} of {len(requests)} requests asked both ways")

    return asyncio.run(asking.ask_both_ways(chain, f"http://{LOOPBACK}:{vllm_port}", requests, progress))


def _keep(mismatches: Sequence[Judged], path: Path) -> None:
    """What did not hold, whole, for whoever looks into it; it stays in the ignored folder."""
    path.write_text(
        json.dumps(
            [
                {
                    "name": each.seen.request.name,
                    "problem": each.problem,
                    "sent": each.seen.request.sent,
                    "past": each.seen.request.past,
                    "reason": each.seen.attached.reason,
                    "record_ids": each.seen.attached.ids,
                    "ids_through_the_chain": each.seen.chain.prompts,
                    "ids_past_it": each.seen.past.prompts,
                }
                for each in mismatches
            ],
            indent=1,
        ),
        "utf-8",
    )


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.e2e_vllm",
        description=__doc__,
        epilog=NOTES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--seed", type=int, default=1, help="of the requests (default: %(default)s)")
    parser.add_argument(
        "--generated",
        type=int,
        default=240,
        metavar="N",
        help="generated requests of the parity corpus, recorded ones in proportion (default: %(default)s)",
    )
    parser.add_argument(
        "--cache",
        type=Path,
        default=CACHE,
        metavar="DIR",
        help="where everything is kept (default: .cache/e2e-vllm)",
    )
    parser.add_argument(
        "--vllm-port",
        type=int,
        metavar="PORT",
        help="of a vLLM on 127.0.0.1 that serves the model already, in the place of one of its own",
    )
    return parser.parse_args(arguments)


def _terminated(number: int, frame: FrameType | None) -> NoReturn:
    del frame
    sys.exit(128 + number)


if __name__ == "__main__":
    sys.exit(main())
