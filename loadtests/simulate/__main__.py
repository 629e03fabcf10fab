"""`python -m loadtests.simulate [--seed N] [--only STRATEGY ...]`: see `--help`."""

import argparse
import asyncio
import os
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from rich.console import Console

from loadtests.simulate import report
from loadtests.simulate.bounds import check
from loadtests.simulate.contenders import NAMES, contender
from loadtests.simulate.fleet import Client, Fleet, Pace
from loadtests.simulate.run import Outcome, run
from loadtests.simulate.workload import Conversation, Shape, best_hit_rate, conversations
from loadtests.stack.processes import StartError

FOLDER = Path("loadtests/results")
DESCRIPTION = """\
Serves one workload, conversations that share system prompts and grow by turns, with each strategy in turn,
on Dynamo's mocker workers with empty caches. Shows how many prompt tokens each strategy found in a cache,
and how long the first token took. Writes simulate.json and simulate.png; the last line says whether all
bounds hold."""
EXAMPLES = """\
examples:
  python -m loadtests.simulate                          about three minutes
  python -m loadtests.simulate --only random dynamo     these two, with the bounds between them
  python -m loadtests.simulate --conversations 40 --seconds 8     a quick look

exit status: 0 all bounds hold, 1 one is missed or the workers did not start"""


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parse(arguments)
    shape = Shape(seed=options.seed, conversations=options.conversations, seconds=options.seconds)
    pace = Pace(workers=options.workers, blocks=options.blocks, speedup=options.speedup)
    console = Console(stderr=True, highlight=False)
    workload = conversations(shape)
    best = best_hit_rate(workload)
    options.out.mkdir(parents=True, exist_ok=True)
    outcomes: dict[str, Outcome] = {}
    for name in options.only:
        console.print(f"{name}: {shape.requests} requests on {pace.workers} workers", style="dim")
        with tempfile.TemporaryDirectory(prefix="simulate-") as logs:
            try:
                outcomes[name] = _serve(name, workload, pace, Path(logs), seed=shape.seed)
            except StartError as error:
                print(f"simulate: {error}", file=sys.stderr)
                return 1
    bounds = check(outcomes, requests=shape.requests, best=best)
    settings = {"workload": asdict(shape), "workers": asdict(pace)}
    report.write(outcomes, bounds, settings=settings, best=best, path=options.out / "simulate.json")
    report.draw(outcomes, best, options.out / "simulate.png")
    shown = Console(highlight=False, width=None if sys.stdout.isatty() else 120)
    shown.print(report.table(outcomes, best))
    for bound in bounds:
        shown.print(f"  {'ok' if bound.holds else 'MISSED'}  {bound.what}: {bound.value:.3g}", markup=False)
    print(report.summary(outcomes, bounds), flush=True)
    return 0 if all(bound.holds for bound in bounds) else 1


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m loadtests.simulate",
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    shape, pace = Shape(), Pace()
    parser.add_argument("--only", nargs="+", choices=NAMES, default=NAMES, metavar="STRATEGY",
                        help=f"some of: {', '.join(NAMES)}")  # fmt: skip
    parser.add_argument("--seed", type=int, default=shape.seed, help="of workload and choices (%(default)s)")
    parser.add_argument("--conversations", type=int, default=shape.conversations, metavar="N",
                        help="each of 4 turns (%(default)s)")  # fmt: skip
    parser.add_argument("--seconds", type=float, default=shape.seconds, metavar="S",
                        help="within which conversations begin (%(default)s)")  # fmt: skip
    parser.add_argument(
        "--workers", type=int, default=pace.workers, metavar="N", help="mockers (%(default)s)"
    )
    parser.add_argument("--blocks", type=int, default=pace.blocks, metavar="N",
                        help="KV cache blocks of 16 tokens per worker (%(default)s)")  # fmt: skip
    parser.add_argument("--speedup", type=float, default=pace.speedup, metavar="X",
                        help="of the mocker's model of a GPU (%(default)s)")  # fmt: skip
    parser.add_argument("--out", type=Path, default=FOLDER, metavar="DIR", help="for results (%(default)s)")
    return parser.parse_args(arguments)


def _serve(name: str, workload: list[Conversation], pace: Pace, logs: Path, *, seed: int) -> Outcome:
    with Fleet(pace, logs) as fleet:
        # Dynamo's runtime reads where its deployment is from the environment, and from nowhere else.
        os.environ.update({**fleet.plane.env, "DYN_LOG": "error"})
        return asyncio.run(_contend(name, workload, fleet, pace, logs, seed=seed))


async def _contend(
    name: str, workload: list[Conversation], fleet: Fleet, pace: Pace, logs: Path, *, seed: int
) -> Outcome:
    client = await Client.join(pace.workers)
    endpoints = fleet.endpoints()
    try:
        async with contender(
            name, endpoints, nats=fleet.plane.env["NATS_SERVER"], folder=logs, seed=seed
        ) as strategy:
            return await run(strategy, workload, endpoints, client)
    finally:
        client.leave()


if __name__ == "__main__":
    sys.exit(main())
