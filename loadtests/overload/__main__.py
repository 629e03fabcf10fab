"""`python -m loadtests.overload`: see `--help`."""

import argparse
import asyncio
import gc
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final
from urllib.request import urlopen

import uvloop
from prometheus_client.parser import text_string_to_metric_families
from rich.console import Console

from loadtests.bench.model_choice import HELP, choose
from loadtests.bench.processes_cost import cpu_seconds
from loadtests.bench.prose import prose
from loadtests.bench.results import Results
from loadtests.overload.client import Client
from loadtests.overload.judging import (
    TOO_MANY_OPEN,
    Overload,
    bounds,
    figures,
    goodput,
    lateness,
    summed_up,
)
from loadtests.stack import services
from loadtests.stack.envoy_config import UnixAddress
from loadtests.stack.model_source import Model, ModelError
from loadtests.stack.probes import LOOPBACK, free_ports
from loadtests.stack.processes import ManagedProcess, StartError, Supervisor
from tokenext.settings import HttpSettings, Limits

FOLDER: Final = Path("loadtests/results")
PATH: Final = "/v1/chat/completions/render"
TOKENS: Final = 8_000
CHARS_PER_TOKEN: Final = 4.6  # of prose(), with the Qwen3 tokenizer
TEXT_CHARS: Final = 4_000_000  # that prompts are cut out of, each from another place on
STEP_CHARS: Final = 7_919
TIMES: Final = 4.0
CONNECTIONS: Final = 32  # enough to keep it busy, fewer than may wait: nothing is refused
WARM_SECONDS: Final = 2.0
CAPACITY_SECONDS: Final = 6.0
MOST_CONNECTIONS: Final = 4_000
# Of the client itself: to write 40 KB, to read 8,000 ids, and to get a CPU on a machine that is busy.
ALLOWANCE_SECONDS: Final = 0.25
# What comes later is no answer.
PATIENCE_SECONDS: Final = 10.0
# Beside each request that is served, three are read and refused. They may cost as much as that one, not more.
LEAST_GOODPUT: Final = 0.5
# Below it the run is of whoever else was on tokenext's core.
LEAST_CORE: Final = 0.9
START_SECONDS: Final = 120.0
DESCRIPTION: Final = """\
Offers tokenext's HTTP port four times as many first-seen chats of 8,000 tokens as it can answer. Every one
must have an answer by its deadline: ids, or a 503 with Retry-After that the metrics count under its reason;
and ids must still be made at half the rate at least. One process with the default limits, on one core; the
client is another process, on the other ones. Writes overload.json; the last line says what happened."""
EXAMPLES: Final = """\
examples:
  python -m loadtests.overload                      half a minute
  python -m loadtests.overload --seconds 60 --times 8

exit status: 0 all promises are kept, 1 one is not, 2 it could not be measured (one line says why)"""


class NotMeasuredError(RuntimeError):
    """The run says nothing of tokenext; the message says why."""


def body_maker(model: str) -> Callable[[int], bytes]:
    """Chats of TOKENS tokens that differ from their first character on."""
    chars = round(TOKENS * CHARS_PER_TOKEN)
    # Without what JSON escapes, so that it may be cut anywhere.
    text = prose(1, TEXT_CHARS).encode("ascii", "ignore").translate(None, bytes([*range(32), *b'"\\']))
    chat = json.dumps({"model": model, "messages": [{"role": "user", "content": "?"}]}).encode()
    head, _, tail = chat.partition(b"?")

    def body(number: int) -> bytes:
        start = number * STEP_CHARS % (len(text) - chars)
        return b"%b%012d %b%b" % (head, number, text[start : start + chars], tail)

    return body


def counts(admin: int) -> dict[str, int]:
    """What the process has refused so far by reason, and as "tokenized" what it has not."""
    with urlopen(f"http://{LOOPBACK}:{admin}/metrics", timeout=10) as answer:
        families = list(text_string_to_metric_families(answer.read().decode()))
    found: dict[str, int] = {}
    for sample in (each for family in families for each in family.samples):
        if sample.name == "tokenext_requests_total":
            tokenized = sample.labels["outcome"] == "tokenized"
            key = "tokenized" if tokenized else sample.labels["reason"]
        elif sample.name == "tokenext_http_requests_refused_total":
            key = TOO_MANY_OPEN
        else:
            continue
        found[key] = found.get(key, 0) + round(sample.value)
    return found


class Core:
    """How much of its core the process has had since the last look."""

    def __init__(self, process: ManagedProcess) -> None:
        self._pid = process.pid
        self._seen = (time.perf_counter(), cpu_seconds([self._pid]))

    def check(self) -> None:
        """Raises NotMeasuredError for too little."""
        (since, before), now = self._seen, (time.perf_counter(), cpu_seconds([self._pid]))
        self._seen = now
        share = (now[1] - before) / (now[0] - since)
        if share < LEAST_CORE:
            raise NotMeasuredError(f"tokenext had {share:.0%} of its core: others were on it, or it waited")


async def measure(
    port: int, admin: int, model: Model, process: ManagedProcess, options: argparse.Namespace
) -> Overload:
    """Raises NotMeasuredError."""
    latest = Limits().deadline_ms / 1e3 + ALLOWANCE_SECONDS
    async with Client(
        LOOPBACK, port, PATH, body_maker(model.name), most_connections=MOST_CONNECTIONS
    ) as client:
        for seconds in (WARM_SECONDS, CAPACITY_SECONDS):
            core = Core(process)
            done = await client.saturate(connections=CONNECTIONS, seconds=seconds, patience=PATIENCE_SECONDS)
            if any(each.status != 200 for each in done):
                raise NotMeasuredError("requests were refused before there were too many")
        core.check()
        capacity = goodput(done, CAPACITY_SECONDS)
        await client.open(HttpSettings("").max_requests)
        before = await asyncio.to_thread(counts, admin)
        core = Core(process)
        answers = await client.offer(
            rate=capacity * options.times, seconds=options.seconds, patience=PATIENCE_SECONDS
        )
        core.check()
    if (late := lateness(answers)) > ALLOWANCE_SECONDS:
        raise NotMeasuredError(f"the client itself was {late:.2f} s late (p99): too little CPU for it")
    after = await asyncio.to_thread(counts, admin)
    counted = {name: after[name] - before.get(name, 0) for name in after}
    return Overload(
        capacity=capacity,
        times=options.times,
        seconds=options.seconds,
        latest=latest,
        answers=answers,
        tokenized=counted.pop("tokenized"),
        counted={name: count for name, count in counted.items() if count},
    )


def keep_apart(process: ManagedProcess) -> None:
    """One core for tokenext, as a container with `cpu: 1` has, the others for us."""
    first, *others = sorted(os.sched_getaffinity(0))
    if not others:
        raise NotMeasuredError("two cores are needed: one for tokenext, one for the client")
    for task in Path(f"/proc/{process.pid}/task").iterdir():
        with suppress(ProcessLookupError):
            os.sched_setaffinity(int(task.name), {first})
    os.sched_setaffinity(0, set(others))


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parse(arguments)
    console = Console(width=None if sys.stdout.isatty() else 120)
    port, admin = free_ports(2)
    try:
        model = choose(options.model)
        with (
            tempfile.TemporaryDirectory(prefix="overload-") as scratch,
            Supervisor(Path(scratch)) as supervisor,
        ):
            settings = {
                "http": {"listen": f"{LOOPBACK}:{port}"},
                "models": [{"name": model.name, "source": str(model.folder), "profile": "vllm"}],
            }
            listen = UnixAddress(f"{scratch}/tokenext.sock")
            process = supervisor.start(
                services.tokenext(
                    Path(scratch), "tokenext", model, listen, admin, handoff="none", settings=settings
                )
            )
            supervisor.wait_ready([process], deadline_seconds=START_SECONDS)
            keep_apart(process)
            gc.disable()  # a full collection of ours would be a late answer of theirs
            seen = uvloop.run(measure(port, admin, model, process, options))
            gc.enable()
    except (ModelError, StartError, NotMeasuredError, OSError) as error:
        print(f"overload: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    results = Results(quick=options.seconds < 20, model=model.name)
    results.ratios.update(bounds(seen, LEAST_GOODPUT))
    results.measurements.update(
        {
            "overload": figures(seen),
            "deadline_ms": Limits().deadline_ms,
            "allowance_seconds": ALLOWANCE_SECONDS,
        }
    )
    results.write(options.out / "overload.json")
    results.show(console)
    print(summed_up(seen, results.misses))
    return 1 if results.misses else 0


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m loadtests.overload",
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--seconds", type=float, default=20.0, metavar="S", help="of overload (%(default)s)")
    add("--times", type=float, default=TIMES, metavar="N", help="of what it can do (%(default)s)")
    add("--model", default="qwen3", help=HELP)
    add("--out", type=Path, default=FOLDER, metavar="DIR", help="for overload.json (%(default)s)")
    options = parser.parse_args(arguments)
    if options.seconds <= 0 or options.times <= 1:
        parser.error("--seconds above 0, --times above 1")
    return options


if __name__ == "__main__":
    sys.exit(main())
