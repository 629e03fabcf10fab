"""What each worker's KV cache holds, exactly as its events tell; pure.

The index is keyed by the tokens of a prefix (blocks.py) and never by an engine's own block ids: those only
name, within one worker, the block that an event means. So engines that hash in different ways share one
index, and equal ids of two engines mean nothing.

Rules, which are also Dynamo's (lib/kv-router, indexer/concurrent_radix_tree.rs): a block whose parent the
worker has not announced has no place and is left out; removing a block leaves its descendants alone, and a
match ends at the first block that is missing; clearing empties one data-parallel rank.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from operator import or_
from typing import Final

from epp_adapter.routing.holders import BlockHolders, HolderBits, longest_prefixes
from extproc.dynamo_blocks import chained_key

__all__ = [
    "Applied",
    "BlockId",
    "Cleared",
    "KvEvent",
    "PrefixIndex",
    "PrefixMatch",
    "Removed",
    "Stored",
    "StoredBlock",
    "Tier",
    "WorkerRank",
]

BlockId = int | bytes
WorkerName = int | str


class Tier(StrEnum):
    """Where a worker keeps a block; the names are Dynamo's storage tiers."""

    DEVICE = "device"
    HOST_PINNED = "host_pinned"
    DISK = "disk"
    EXTERNAL = "external"


@dataclass(frozen=True, slots=True)
class WorkerRank:
    """One KV cache: a data-parallel rank of a worker.

    `worker` is a Dynamo instance id, or an endpoint's address.
    """

    worker: WorkerName
    dp_rank: int = 0


@dataclass(frozen=True, slots=True)
class StoredBlock:
    """`block_id` is the engine's own name of the block; `tokens_hash` is of the block's tokens alone."""

    block_id: BlockId
    tokens_hash: int


@dataclass(frozen=True, slots=True)
class Stored:
    """Blocks that follow each other, the first of them after `parent`; None: they begin a prompt."""

    owner: WorkerRank
    parent: BlockId | None
    blocks: Sequence[StoredBlock]
    tier: Tier = Tier.DEVICE


@dataclass(frozen=True, slots=True)
class Removed:
    owner: WorkerRank
    block_ids: Sequence[BlockId]
    tier: Tier = Tier.DEVICE


@dataclass(frozen=True, slots=True)
class Cleared:
    """All blocks of one rank are gone, in every tier."""

    owner: WorkerRank


KvEvent = Stored | Removed | Cleared


class Applied(StrEnum):
    """What became of an event; a metric label."""

    STORED = "stored"
    REMOVED = "removed"
    CLEARED = "cleared"
    ORPHANED = "orphaned"  # its parent is not known, so its tokens are not
    UNKNOWN_BLOCK = "unknown_block"  # it removes what is not known
    FULL = "full"  # the index has its bound of blocks; the rest of the event is left out


@dataclass(frozen=True, slots=True)
class PrefixMatch:
    """How many of a prompt's leading blocks a rank holds: on the device, and in any tier at all."""

    device_blocks: int
    blocks: int


class _Cache:
    """One rank's blocks: per tier, block id -> key; and how many ids share a key, where several do."""

    __slots__ = ("ids", "shared")

    def __init__(self) -> None:
        self.ids: dict[Tier, dict[BlockId, int]] = {}
        self.shared: dict[tuple[bool, int], int] = {}

    def key(self, block_id: BlockId) -> int | None:
        """Of the fastest tier, should an engine give one id two meanings."""
        for tier in Tier:
            key = self.ids.get(tier, {}).get(block_id)
            if key is not None:
                return key
        return None


class PrefixIndex:
    """Owns all knowledge of one pool. `max_blocks` bounds the blocks of all workers together.

    A full index leaves new blocks out until workers remove old ones: it knows less then, and nothing wrong.
    """

    def __init__(self, max_blocks: int = 1_000_000) -> None:
        self.max_blocks: Final = max_blocks
        self.blocks = 0
        self._caches: dict[WorkerRank, _Cache] = {}
        self._bits: HolderBits[WorkerRank] = HolderBits()
        self._device = BlockHolders()
        self._lower = BlockHolders()

    @property
    def owners(self) -> tuple[WorkerRank, ...]:
        """The ranks of which anything is known."""
        return tuple(self._caches)

    def apply(self, event: KvEvent) -> Applied:
        if isinstance(event, Stored):
            return self._store(event)
        if isinstance(event, Removed):
            return self._remove(event)
        self.forget(event.owner)
        return Applied.CLEARED

    def _store(self, event: Stored) -> Applied:
        cache = self._caches.get(event.owner)
        parent: int | None = None
        if event.parent is not None:
            parent = cache.key(event.parent) if cache else None
            if parent is None:
                return Applied.ORPHANED
        if cache is None:
            cache = self._caches[event.owner] = _Cache()
        ids = cache.ids.setdefault(event.tier, {})
        bit = self._bits.bit(event.owner)
        for block in event.blocks:
            parent = chained_key(parent, block.tokens_hash)
            known = ids.get(block.block_id)
            if known == parent:
                continue
            if known is not None:
                self._drop(cache, event.tier, block.block_id, bit)
            elif self.blocks >= self.max_blocks:
                self._forget_if_empty(event.owner)
                return Applied.FULL
            self._put(cache, event.tier, block.block_id, parent, bit)
        self._forget_if_empty(event.owner)
        return Applied.STORED

    def _put(self, cache: _Cache, tier: Tier, block_id: BlockId, key: int, bit: int) -> None:
        cache.ids[tier][block_id] = key
        self.blocks += 1
        holders = self._holders(tier)
        if holders.get(key) >> bit & 1:
            slot = (tier is Tier.DEVICE, key)
            cache.shared[slot] = cache.shared.get(slot, 1) + 1
        else:
            holders.add(key, bit)

    def _drop(self, cache: _Cache, tier: Tier, block_id: BlockId, bit: int) -> bool:
        key = cache.ids.get(tier, {}).pop(block_id, None)
        if key is None:
            return False
        self.blocks -= 1
        slot = (tier is Tier.DEVICE, key)
        left = cache.shared.pop(slot, 1) - 1
        if left == 0:
            self._holders(tier).discard(key, bit)
        elif left > 1:
            cache.shared[slot] = left
        return True

    def _holders(self, tier: Tier) -> BlockHolders:
        return self._device if tier is Tier.DEVICE else self._lower

    def _remove(self, event: Removed) -> Applied:
        cache = self._caches.get(event.owner)
        if cache is None:
            return Applied.UNKNOWN_BLOCK
        bit = self._bits.bit(event.owner)
        dropped = [self._drop(cache, event.tier, block_id, bit) for block_id in event.block_ids]
        self._forget_if_empty(event.owner)
        return Applied.REMOVED if all(dropped) else Applied.UNKNOWN_BLOCK

    def _forget_if_empty(self, owner: WorkerRank) -> None:
        if not any(self._caches[owner].ids.values()):
            self.forget(owner)

    def forget(self, owner: WorkerRank) -> None:
        """Drop all that is known of one rank: it was cleared, it is gone, or its events have a gap."""
        cache = self._caches.pop(owner, None)
        if cache is None:
            return
        bit = self._bits.bit(owner)
        for tier, ids in cache.ids.items():
            self._holders(tier).discard_all(ids.values(), bit)
            self.blocks -= len(ids)
        self._bits.release(owner)

    def holds(self, owner: WorkerRank, block_id: BlockId, tier: Tier = Tier.DEVICE) -> bool:
        cache = self._caches.get(owner)
        return cache is not None and block_id in cache.ids.get(tier, {})

    def matches(self, keys: Sequence[int]) -> dict[WorkerRank, PrefixMatch]:
        """The longest prefix of `keys` (`block_keys`) that each rank holds; who holds none is absent."""
        device, anywhere = self._prefixes(keys)
        return {
            owner: PrefixMatch(device.get(bit, 0), blocks)
            for (bit, blocks), owner in zip(anywhere.items(), self._bits.holders(anywhere), strict=True)
        }

    def best_matches(self, keys: Sequence[int]) -> dict[WorkerName, tuple[int, int, int]]:
        """Each worker's best rank: (blocks on the device, blocks in any tier, minus the rank); none: absent.

        The greatest tuple is the best: more on the device, then more in any tier, then the lower rank, so
        that equal knowledge gives equal picks. Plain tuples, since every pick asks this of the whole pool.
        """
        device, anywhere = self._prefixes(keys)
        best: dict[WorkerName, tuple[int, int, int]] = {}
        for (bit, blocks), owner in zip(anywhere.items(), self._bits.holders(anywhere), strict=True):
            found = (device.get(bit, 0), blocks, -owner.dp_rank)
            known = best.get(owner.worker)
            if known is None or found > known:
                best[owner.worker] = found
        return best

    def _prefixes(self, keys: Sequence[int]) -> tuple[dict[int, int], dict[int, int]]:
        """Lengths by bit: on the device, and in any tier."""
        device = longest_prefixes(self._device.get_each(keys))
        if not len(self._lower):
            return device, device
        anywhere = map(or_, self._device.get_each(keys), self._lower.get_each(keys))
        return device, longest_prefixes(anywhere)
