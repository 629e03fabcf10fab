"""The seam between a scheduler and whoever knows which prompts endpoints hold in their KV caches."""

from collections.abc import Callable, Mapping, Sequence
from operator import attrgetter
from typing import Final, NamedTuple, Protocol

from epp_adapter.endpoints import Endpoint
from epp_adapter.routing.prefix_index import PrefixIndex, WorkerName

__all__ = [
    "NO_OVERLAP",
    "ExactPrefixes",
    "FixedPrefixes",
    "Overlap",
    "PrefixKnowledge",
    "by_address",
    "by_dynamo_instance",
]


class Overlap(NamedTuple):
    """What an endpoint holds of a prompt: leading blocks on the device, and leading blocks in any tier.

    `dp_rank` is the data-parallel rank that holds them, where that is known.
    """

    device_blocks: int
    blocks: int
    dp_rank: int | None = None


NO_OVERLAP: Final = Overlap(0, 0)


class PrefixKnowledge(Protocol):
    """`keys` are `block_keys` of the prompt, at the block size that this knowledge was made with."""

    def overlaps(self, keys: Sequence[int], endpoints: Sequence[Endpoint]) -> Mapping[str, Overlap]:
        """By address. An endpoint that holds nothing, or of which nothing is known, may be absent."""
        ...

    def picked(self, endpoint: Endpoint, keys: Sequence[int], num_blocks: int = 0) -> None:
        """The prompt was sent to this endpoint, whose KV cache has `num_blocks`; 0: not known."""
        ...


# Whose events speak for an endpoint: in a Dynamo deployment, and where each model server publishes its own.
by_dynamo_instance: Final[Callable[[Endpoint], WorkerName | None]] = attrgetter("dynamo_instance_id")
by_address: Final[Callable[[Endpoint], WorkerName | None]] = attrgetter("address")


class ExactPrefixes:
    """Knowledge from KV events, in an index that their adapters fill."""

    def __init__(self, index: PrefixIndex, worker_of: Callable[[Endpoint], WorkerName | None]) -> None:
        self._index = index
        self._worker_of = worker_of

    def overlaps(self, keys: Sequence[int], endpoints: Sequence[Endpoint]) -> Mapping[str, Overlap]:
        best = self._index.best_matches(keys)
        if not best:
            return {}
        # Hundreds of endpoints share a handful of overlaps: the pool's system prompt, and nothing.
        made = {match: Overlap(match[0], match[1], -match[2]) for match in set(best.values())}
        workers = map(self._worker_of, endpoints)
        return {
            endpoint.address: made[best[worker]]
            for endpoint, worker in zip(endpoints, workers, strict=True)
            if worker in best
        }

    def picked(self, endpoint: Endpoint, keys: Sequence[int], num_blocks: int = 0) -> None:
        """Nothing to learn: the worker will say itself what it holds."""


class FixedPrefixes:
    """Knows what it was told, and keeps the picks: the fake of the seam above."""

    def __init__(self, overlaps: Mapping[str, Overlap] | None = None) -> None:
        self.known = dict(overlaps or {})
        self.picks: list[tuple[str, int]] = []

    def overlaps(self, keys: Sequence[int], endpoints: Sequence[Endpoint]) -> Mapping[str, Overlap]:
        addresses = {endpoint.address for endpoint in endpoints}
        return {
            address: Overlap(
                min(overlap.device_blocks, len(keys)), min(overlap.blocks, len(keys)), overlap.dp_rank
            )
            for address, overlap in self.known.items()
            if address in addresses
        }

    def picked(self, endpoint: Endpoint, keys: Sequence[int], num_blocks: int = 0) -> None:
        del num_blocks
        self.picks.append((endpoint.address, len(keys)))
