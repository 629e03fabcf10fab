"""What a pick of strategy `internal` costs: `python -m tests.epp_adapter.bench_pick --help`.

Each figure is the whole of a pick as the exchange makes it: the subset hint is parsed and applied to the
pool, block keys are hashed from the packed ids, the default profile (queue, KV cache, prefix) scores, and the
picker picks. CPU time is this thread's own; wall time includes what else the machine is doing.
"""

import argparse
import asyncio
import random
import statistics
import sys
import time

from epp_adapter.endpoints import Endpoint, EndpointSnapshot, candidates, parse_subset_hint
from epp_adapter.routing import plugins
from epp_adapter.routing.approx_prefix import ApproximatePrefixes
from epp_adapter.routing.blocks import tokens_hashes
from epp_adapter.routing.load import EndpointLoad, FixedLoads
from epp_adapter.routing.pickers import MaxScorePicker
from epp_adapter.routing.prefix import ExactPrefixes, by_address
from epp_adapter.routing.prefix_index import PrefixIndex, Stored, StoredBlock, WorkerRank
from epp_adapter.routing.profile import Profile, SingleProfileHandler, WeightedScorer
from epp_adapter.routing.scheduler import InternalStrategy, PrefixOptions
from epp_adapter.routing.strategy import RoutingRequest
from extproc.events import Termination
from extproc.token_metadata import TokenIds

BLOCK_SIZE = 16


def pool(count: int) -> tuple[Endpoint, ...]:
    return tuple(Endpoint(f"10.{n // 62500}.{n // 250 % 250}.{n % 250 + 1}:8000") for n in range(count))


def prompts(count: int, tokens: int) -> list[TokenIds]:
    """Half of each prompt is shared by all."""
    source = random.Random(1)
    shared = [source.randrange(150_000) for _ in range(tokens // 2)]
    return [
        TokenIds.pack(shared + [source.randrange(150_000) for _ in range(tokens - len(shared))])
        for _ in range(count)
    ]


def exact(endpoints: tuple[Endpoint, ...], asked: list[TokenIds]) -> ExactPrefixes:
    """Every endpoint holds the shared half, and some prompts whole."""
    index = PrefixIndex(max_blocks=10_000_000)
    for number, endpoint in enumerate(endpoints):
        hashes = tokens_hashes(asked[number % len(asked)].packed, BLOCK_SIZE)
        held = hashes if number % 3 == 0 else hashes[: len(hashes) // 2]
        blocks = [StoredBlock(position, value) for position, value in enumerate(held)]
        index.apply(Stored(WorkerRank(endpoint.address), None, blocks))
    return ExactPrefixes(index, by_address)


def strategy_for(knowledge, endpoints: tuple[Endpoint, ...]) -> InternalStrategy:
    source = random.Random(2)
    loads = FixedLoads(
        {
            endpoint.address: EndpointLoad(source.randrange(9), source.randrange(20), source.random(), 0.0)
            for endpoint in endpoints
        }
    )
    scorers = (
        WeightedScorer(plugins.QUEUE, 2),
        WeightedScorer(plugins.KV_CACHE_UTILIZATION, 2),
        WeightedScorer(plugins.PrefixScorer(), 3),
    )
    handler = SingleProfileHandler(Profile("default", (), scorers, MaxScorePicker(3)))
    return InternalStrategy(
        "internal",
        handler,
        clock=time.monotonic,
        loads=loads,
        prefixes=PrefixOptions(knowledge, BLOCK_SIZE),
    )


async def measure(
    strategy, endpoints, hint: list[str] | None, asked: list[TokenIds], picks: int
) -> list[tuple[float, float]]:
    """Milliseconds of each pick: by the clock, and of CPU."""
    snapshot = EndpointSnapshot(endpoints)
    taken = []
    for number in range(picks):
        request = RoutingRequest(str(number), "model", asked[number % len(asked)])
        started, cpu = time.perf_counter(), time.thread_time()
        among = candidates(snapshot, parse_subset_hint(hint))
        pick = await strategy.pick(request, among)
        taken.append(((time.perf_counter() - started) * 1e3, (time.thread_time() - cpu) * 1e3))
        await pick.finished(Termination.ENDED)
    return taken


def _percentiles(milliseconds: tuple[float, ...]) -> str:
    ordered = sorted(milliseconds)
    return f"{statistics.median(ordered):>8.2f} {ordered[int(len(ordered) * 0.99)]:>6.2f}"


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--endpoints", type=int, default=500)
    parser.add_argument("--picks", type=int, default=400)
    options = parser.parse_args()
    endpoints = pool(options.endpoints)
    everyone = [endpoint.address for endpoint in endpoints]
    hints = {"none": None, "all": everyone, "half": everyone[::2]}
    print(f"{options.endpoints} endpoints, milliseconds per pick")  # noqa: T201
    head = (
        f"{'tokens':>7} {'prefixes':>12} {'hint':>5} | {'wall p50':>8} {'p99':>6} | {'cpu p50':>8} {'p99':>6}"
    )
    print(head)  # noqa: T201
    for tokens in (1024, 8192, 32768):
        asked = prompts(50, tokens)
        for name in ("exact", "approximate"):
            knowledge = exact(endpoints, asked) if name == "exact" else ApproximatePrefixes()
            for label, hint in hints.items():
                strategy = strategy_for(knowledge, endpoints)
                asyncio.run(measure(strategy, endpoints, hint, asked, 20))
                taken = asyncio.run(measure(strategy, endpoints, hint, asked, options.picks))
                wall, cpu = (_percentiles(column) for column in zip(*taken, strict=True))
                print(f"{tokens:>7} {name:>12} {label:>5} | {wall} | {cpu}")  # noqa: T201
    return 0


if __name__ == "__main__":
    sys.exit(main())
