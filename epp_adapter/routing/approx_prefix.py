"""What endpoints probably hold, judged by where this process has sent prompts before. Pure."""

from collections import deque
from collections.abc import Mapping, Sequence
from itertools import compress, islice
from operator import not_

from epp_adapter.endpoints import Endpoint
from epp_adapter.routing.holders import BlockHolders, HolderBits, longest_prefixes
from epp_adapter.routing.prefix import Overlap

__all__ = ["DEFAULT_BLOCKS_PER_ENDPOINT", "ApproximatePrefixes"]

# The reference's lruCapacityPerServer: 500,000 tokens of an 8 B model on an 80 GB device, at 16 per block.
DEFAULT_BLOCKS_PER_ENDPOINT = 31_250


class ApproximatePrefixes:
    """A PrefixKnowledge: one least-recently-used list of blocks per endpoint, as long as its cache.

    `auto_tune` takes an endpoint's own number of blocks in place of `blocks_per_endpoint` where it is known.
    Endpoints that were not picked for longest are forgotten when there are more than `max_endpoints`.
    """

    def __init__(
        self,
        blocks_per_endpoint: int = DEFAULT_BLOCKS_PER_ENDPOINT,
        *,
        auto_tune: bool = True,
        max_endpoints: int = 1024,
    ) -> None:
        self._capacity = blocks_per_endpoint
        self._auto_tune = auto_tune
        self._max_endpoints = max_endpoints
        # Both in the order of use; a dict's values are None: it is a set that remembers its order.
        self._recent: dict[str, dict[int, None]] = {}
        self._bits: HolderBits[str] = HolderBits()
        self._holders = BlockHolders()

    @property
    def blocks(self) -> int:
        """Blocks of all endpoints together."""
        return sum(len(recent) for recent in tuple(self._recent.values()))

    def overlaps(self, keys: Sequence[int], endpoints: Sequence[Endpoint]) -> Mapping[str, Overlap]:
        del endpoints
        found = longest_prefixes(self._holders.get_each(keys))
        made = {blocks: Overlap(blocks, blocks) for blocks in set(found.values())}
        return dict(zip(self._bits.holders(found), map(made.__getitem__, found.values()), strict=True))

    def picked(self, endpoint: Endpoint, keys: Sequence[int], num_blocks: int = 0) -> None:
        recent = self._recent.pop(endpoint.address, None)
        if recent is None:
            recent = {}
            if len(self._recent) >= self._max_endpoints:
                self._forget(next(iter(self._recent)))
        self._recent[endpoint.address] = recent
        bit = self._bits.bit(endpoint.address)
        # No line of Python runs for a block that is known already, and a prompt has thousands.
        known = list(map(recent.__contains__, keys))
        self._holders.add_all(compress(keys, map(not_, known)), bit)
        deque(map(recent.pop, compress(keys, known)), maxlen=0)
        # Last block first: an engine too frees the end of a prompt before its beginning, and a prefix without
        # its first block is worth nothing.
        recent.update(dict.fromkeys(reversed(keys)))
        capacity = num_blocks if num_blocks and self._auto_tune else self._capacity
        forgotten = tuple(islice(recent, max(0, len(recent) - capacity)))
        deque(map(recent.pop, forgotten), maxlen=0)
        self._holders.discard_all(forgotten, bit)

    def _forget(self, address: str) -> None:
        self._holders.discard_all(self._recent.pop(address), self._bits.bit(address))
        self._bits.release(address)
