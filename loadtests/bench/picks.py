"""`python -m loadtests.bench.picks`: see `--help`."""

import argparse
import asyncio
import gc
import random
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from envoy.config.core.v3.base_pb2 import Metadata
from rich.console import Console
from rich.table import Table

from epp_adapter.endpoints import Endpoint, EndpointSnapshot, candidates, parse_subset_hint
from epp_adapter.routing import plugins
from epp_adapter.routing.approx_prefix import ApproximatePrefixes
from epp_adapter.routing.load import EndpointLoad, FixedLoads
from epp_adapter.routing.pickers import MaxScorePicker
from epp_adapter.routing.prefix import ExactPrefixes, PrefixKnowledge, by_address
from epp_adapter.routing.prefix_index import PrefixIndex, Stored, StoredBlock, WorkerRank
from epp_adapter.routing.profile import Profile, SingleProfileHandler, WeightedScorer
from epp_adapter.routing.scheduler import InternalStrategy, PrefixOptions
from epp_adapter.routing.strategy import RoutingRequest
from extproc import wellknown
from extproc.dynamo_blocks import tokens_hashes
from extproc.events import Termination
from extproc.replies import EnvoyMetadata
from extproc.token_metadata import TokenIds
from loadtests.bench.results import Ratio, Results

FOLDER = Path("loadtests/results")
DESCRIPTION = """\
What a pick of strategy `internal` costs among many endpoints with a subset hint. A pick is all that an
exchange does for it: the hint is read from Envoy's metadata, parsed and applied to the pool, block keys are
hashed from the packed ids, prefixes are looked up, the default profile (queue, KV cache, prefix) scores, and
the picker picks. Bounds are on CPU time of this thread; wall time includes what else the machine is doing.
Writes picks.json; the last line says whether all bounds hold."""
EXAMPLES = """\
examples:
  python -m loadtests.bench.picks                       half a minute
  python -m loadtests.bench.picks --endpoints 2000

exit status: 0 all bounds hold, 1 one is missed"""
BLOCK_SIZE = 16
SIZES = (1_024, 8_192, 32_768)
BOUNDED = (8_192, 32_768)
MUST, AIM = 5.0, 2.5


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


def exact(endpoints: Sequence[Endpoint], asked: Sequence[TokenIds]) -> ExactPrefixes:
    """Every endpoint holds the shared half, and a third of them one prompt whole."""
    index = PrefixIndex(max_blocks=10_000_000)
    for number, endpoint in enumerate(endpoints):
        hashes = tokens_hashes(asked[number % len(asked)].packed, BLOCK_SIZE)
        held = hashes if number % 3 == 0 else hashes[: len(hashes) // 2]
        blocks = [StoredBlock(position, value) for position, value in enumerate(held)]
        index.apply(Stored(WorkerRank(endpoint.address), None, blocks))
    return ExactPrefixes(index, by_address)


def strategy_for(knowledge: PrefixKnowledge, endpoints: Sequence[Endpoint]) -> InternalStrategy:
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


def hinted(addresses: Sequence[str]) -> EnvoyMetadata:
    """The hint as a gateway sends it: a list of strings in the metadata beside the request."""
    metadata = Metadata()
    metadata.filter_metadata[wellknown.SUBSET_NAMESPACE].update({wellknown.SUBSET_KEY: list(addresses)})
    # As received: what was built here holds Python objects already.
    return EnvoyMetadata(Metadata.FromString(metadata.SerializeToString()))


async def measure(
    strategy: InternalStrategy,
    endpoints: tuple[Endpoint, ...],
    allowed: Sequence[str] | None,
    asked: Sequence[TokenIds],
    picks: int,
) -> list[tuple[float, float]]:
    """Milliseconds of each pick: by the clock, and of CPU."""
    snapshot = EndpointSnapshot(endpoints)
    taken = []
    for number in range(picks):
        request = RoutingRequest(str(number), "model", asked[number % len(asked)])
        metadata = EnvoyMetadata(Metadata()) if allowed is None else hinted(allowed)
        started, cpu = time.perf_counter(), time.thread_time()
        hint = metadata.get(wellknown.SUBSET_NAMESPACE, wellknown.SUBSET_KEY)
        among = candidates(snapshot, parse_subset_hint(hint))
        pick = await strategy.pick(request, among)
        taken.append(((time.perf_counter() - started) * 1e3, (time.thread_time() - cpu) * 1e3))
        await pick.finished(Termination.ENDED)
    return taken


def percentiles(milliseconds: Sequence[float]) -> tuple[float, float]:
    """The median and the 99th percentile."""
    ordered = sorted(milliseconds)
    return ordered[len(ordered) // 2], ordered[int(len(ordered) * 0.99)]


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parse(arguments)
    endpoints = pool(options.endpoints)
    everyone = [endpoint.address for endpoint in endpoints]
    hints = {"none": None, "half": everyone[::2], "all": everyone}
    results = Results(quick=options.picks < 400, model="")
    table = Table(
        *("tokens", "prefixes", "hint", "CPU p50", "CPU p99", "wall p50", "wall p99"),
        title=f"Milliseconds of a pick among {len(endpoints)} endpoints",
    )
    figures: dict[str, dict[str, float]] = {}
    gc.freeze()  # as the adapter does once it is wired
    for tokens in SIZES:
        asked = prompts(50, tokens)
        for prefixes in ("exact", "approximate"):
            knowledge = exact(endpoints, asked) if prefixes == "exact" else ApproximatePrefixes()
            for label, hint in hints.items():
                strategy = strategy_for(knowledge, endpoints)
                asyncio.run(measure(strategy, endpoints, hint, asked, 60))
                taken = asyncio.run(measure(strategy, endpoints, hint, asked, options.picks))
                (wall50, wall99), (cpu50, cpu99) = map(percentiles, zip(*taken, strict=True))
                table.add_row(
                    str(tokens), prefixes, label, *(f"{n:.2f}" for n in (cpu50, cpu99, wall50, wall99))
                )
                figures[f"{tokens} {prefixes} hint {label}"] = {
                    "cpu_p50": round(cpu50, 3), "cpu_p99": round(cpu99, 3),
                    "wall_p50": round(wall50, 3), "wall_p99": round(wall99, 3),
                }  # fmt: skip
                if tokens in BOUNDED and hint is not None:
                    name = f"{prefixes}, {tokens} tokens, hint of {label}: CPU p99"
                    results.ratios[name] = Ratio(cpu99, MUST, AIM, "lower", "ms")
    results.measurements["pick_ms"] = {"endpoints": len(endpoints), "figures": figures}
    results.write(options.out / "picks.json")
    console = Console(width=None if sys.stdout.isatty() else 120)
    console.print(table)
    results.show(console)
    print(results.summary("bench-pick"))
    return 1 if results.misses else 0


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m loadtests.bench.picks",
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--endpoints", type=int, default=500, metavar="N", help="in the pool (%(default)s)")
    parser.add_argument("--picks", type=int, default=400, metavar="N", help="that count (%(default)s)")
    parser.add_argument("--out", type=Path, default=FOLDER, metavar="DIR", help="for results (%(default)s)")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
