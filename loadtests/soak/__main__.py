"""`python -m loadtests.soak`: see `--help`."""

import argparse
import asyncio
import json
import signal
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Final
from urllib.request import urlopen

from rich.console import Console
from rich.progress import Progress

from loadtests.bench.processes_cost import open_files, resident_megabytes
from loadtests.bench.results import machine
from loadtests.soak.ask import Ask, draw
from loadtests.soak.clients import Client, CorruptedError, LostError
from loadtests.soak.growth import growth_of
from loadtests.stack.chain import Chain, ChainOptions, Upstream
from loadtests.stack.envoy_config import BodyMode
from loadtests.stack.processes import StartError

FOLDER: Final = Path("loadtests/results")
CLIENTS: Final = 12
LOOK_SECONDS: Final = 2.0
WATCHED: Final = ("tokenext-0", "epp-adapter", "envoy")
IN_USE: Final = "envoy, in use"
GROWTH: Final = 0.05  # of what memory falls back to, over the last half of the run
MORE_FILES: Final = 16  # open at the end than in the middle: connections come and go
MIN_REQUESTS: Final = 20_000
MODES: Final = {
    "default": (BodyMode.BUFFERED, BodyMode.NONE, BodyMode.NONE),
    "full-duplex": (
        BodyMode.FULL_DUPLEX_STREAMED, BodyMode.FULL_DUPLEX_STREAMED, BodyMode.FULL_DUPLEX_STREAMED,
    ),
}  # fmt: skip
DESCRIPTION: Final = """\
Sends mixed traffic through the chain to echo servers for a long time: bodies of 1 byte to 1.5 MB, chats and
any bytes, HTTP/1.1 on kept connections and HTTP/2, chunked, with trailers, with pauses, streamed answers,
clients that leave in the middle. Every body is hashed at both ends. At the end nothing may be corrupted, lost
or duplicated, and neither memory nor open files may have grown. The last line sums it up."""
EXAMPLES: Final = """\
examples:
  python -m loadtests.soak --minutes 5
  python -m loadtests.soak --minutes 60 --modes full-duplex

exit status: 0 all is well, 1 something is not, 2 the chain did not start"""


@dataclass(slots=True)
class Tally:
    """What became of the requests."""

    sent: int = 0
    left: int = 0
    corrupted: Counter[str] = field(default_factory=Counter)
    lost: Counter[str] = field(default_factory=Counter)
    by_manner: Counter[str] = field(default_factory=Counter)
    whole: set[str] = field(default_factory=set)


@dataclass(frozen=True, slots=True)
class Look:
    """At one moment, by process: resident megabytes and open files. `memory_mb` has beside them what Envoy
    itself says is in use: the rest of its memory is its allocator's.
    """

    requests: int
    memory_mb: Mapping[str, float]
    files: Mapping[str, int]


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parse(arguments)
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    console = Console(stderr=True, highlight=False)
    request_body, epp_body, response_body = MODES[options.modes]
    chain_options = ChainOptions(
        workers=2,
        upstream=Upstream.ECHO,
        tokenext_body=request_body,
        epp_body=epp_body,
        epp_response_body=response_body,
    )
    try:
        with Chain(chain_options, logs=FOLDER / "logs" / "soak") as chain:
            tally, looks = asyncio.run(_soak(chain, options.minutes * 60, options.seed, console))
            seen = _seen(chain)
    except StartError as error:
        print(f"soak: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    return _sum_up(options, tally, looks, seen)


async def _soak(chain: Chain, seconds: float, seed: int, console: Console) -> tuple[Tally, list[Look]]:
    tally, looks = Tally(), []
    ends = time.monotonic() + seconds
    numbers = iter(range(sys.maxsize))

    async def client() -> None:
        async with Client(chain.url) as user:
            for number in numbers:
                if time.monotonic() > ends:
                    return
                await _one(user, draw(number, chain.options.model.name, seed), tally)

    with Progress(console=console, transient=True) as progress:
        shown = progress.add_task("soaking", total=seconds)
        clients = asyncio.gather(*(client() for _ in range(CLIENTS)))
        while not clients.done():
            await asyncio.wait([clients], timeout=LOOK_SECONDS)
            looks.append(_look(chain, tally.sent))
            left = max(0.0, ends - time.monotonic())
            progress.update(shown, completed=seconds - left, description=f"{tally.sent:,} requests")
        await clients
    return tally, looks


async def _one(user: Client, ask: Ask, tally: Tally) -> None:
    tally.sent += 1
    tally.by_manner[ask.manner] += 1
    try:
        await user.ask(ask)
    except LostError as error:
        if ask.manner.leaves:
            tally.left += 1  # it wanted no answer
        else:
            tally.lost[f"{ask.manner}: {error}"] += 1
    except CorruptedError as error:
        tally.corrupted[f"{ask.manner}: {error}"] += 1
    else:
        if ask.manner.leaves:
            tally.left += 1
        else:
            tally.whole.add(ask.name)


def _look(chain: Chain, requests: int) -> Look:
    pids = {name: chain.processes[name].pid for name in WATCHED}
    memory = {name: round(resident_megabytes(pid), 2) for name, pid in pids.items()}
    with urlopen(f"{chain.admin_urls['envoy']}/memory", timeout=30) as response:  # noqa: S310
        memory[IN_USE] = round(int(json.load(response)["allocated"]) / 2**20, 2)
    return Look(
        requests,
        memory,
        {name: open_files(pid) for name, pid in pids.items()},
    )


def _seen(chain: Chain) -> Counter[str]:
    """How often each request reached a server."""
    seen: Counter[str] = Counter()
    for worker in chain.workers:
        with urlopen(f"http://{worker.address}/__seen", timeout=30) as response:
            seen.update(json.load(response))
    return seen


def _sum_up(options: argparse.Namespace, tally: Tally, looks: Sequence[Look], seen: Counter[str]) -> int:
    duplicated = sum(times > 1 for times in seen.values())
    never = sum(name not in seen for name in tally.whole)
    corrupted, lost = tally.corrupted.total() + never, tally.lost.total()
    half = looks[len(looks) // 2 :]
    grown = {
        name: growth_of([(each.requests, each.memory_mb[name]) for each in half])
        for name in (*WATCHED, IN_USE)
    }
    files = {name: half[-1].files[name] - half[0].files[name] for name in WATCHED}
    document = {
        "machine": machine(),
        "parameters": {"minutes": options.minutes, "modes": options.modes, "seed": options.seed},
        "requests": tally.sent,
        "by_manner": dict(tally.by_manner),
        "left_on_purpose": tally.left,
        "corrupted": dict(tally.corrupted),
        "lost": dict(tally.lost),
        "duplicated": duplicated,
        "memory_mb_per_1000_requests": {
            name: round(growth.mb_per_1000_requests, 4) for name, growth in grown.items()
        },
        "open_files_more": files,
        "looks": [asdict(each) for each in looks[:: max(1, len(looks) // 60)]],
    }
    options.out.mkdir(parents=True, exist_ok=True)
    path = options.out / f"soak-{options.modes}.json"
    path.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    flat = not any(growth.exceeds(GROWTH) for growth in grown.values()) and max(files.values()) <= MORE_FILES
    enough = tally.sent >= MIN_REQUESTS or options.minutes < 2
    for what, times in {**tally.corrupted, **tally.lost}.items():
        print(f"  {times} x {what}")
    each = ", ".join(f"{name} {growth.share:+.1%} (±{growth.error:.1%})" for name, growth in grown.items())
    few = "" if enough else f"; fewer than {MIN_REQUESTS:,} requests"
    print(
        f"soak ({options.modes}): {tally.sent:,} requests in {options.minutes:g} min, {corrupted} corrupted, "
        f"{lost} lost, {duplicated} duplicated, {tally.left:,} left on purpose; memory over the last half: "
        f"{each}; open files {max(files.values()):+d}{few}"
    )
    return 0 if flat and enough and not (corrupted or lost or duplicated) else 1


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m loadtests.soak",
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--minutes", type=float, default=5.0, metavar="N", help="how long (%(default)s)")
    parser.add_argument("--modes", choices=list(MODES), default="default",
                        help="body modes of the filters (%(default)s)")  # fmt: skip
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="of what is sent (%(default)s)")
    parser.add_argument("--out", type=Path, default=FOLDER, metavar="DIR", help="for results (%(default)s)")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
