"""KV events as vLLM publishes them (vllm/distributed/kv_events.py), read into an index; no IO.

A message is three frames: topic, sequence (u64, big-endian), and a msgpack batch. The batch and its events
are maps in vLLM 0.32 and arrays in older releases; both are read.
"""

import logging
from array import array
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from epp_adapter.kv_events import KvEventError, KvEventObserver, StreamOutcome
from epp_adapter.routing.prefix_index import (
    BlockId,
    Cleared,
    PrefixIndex,
    Removed,
    Stored,
    StoredBlock,
    Tier,
    WorkerRank,
)
from extproc.dynamo_blocks import tokens_hashes
from extproc.token_metadata import TokenIds

__all__ = ["VllmEventStream"]

_log = logging.getLogger(__name__)

# Field order of the array form; a release only ever adds at the end.
_STORED_FIELDS: Final = (
    "block_hashes",
    "parent_block_hash",
    "token_ids",
    "block_size",
    "lora_id",
    "medium",
    "lora_name",
    "extra_keys",
    "group_idx",
    "kv_cache_spec_kind",
    "kv_cache_spec_sliding_window",
    "locality",
)
_REMOVED_FIELDS: Final = ("block_hashes", "medium", "group_idx", "locality")
# Attention whose blocks say how long a prefix is; windows and state-space layers keep something else.
_PREFIX_KINDS: Final = frozenset({"full_attention", "mla_attention", "sink_full_attention"})
_TIERS: Final[Mapping[str, Tier]] = {
    "gpu": Tier.DEVICE,
    "cpu": Tier.HOST_PINNED,
    "cpu_tier1": Tier.HOST_PINNED,
    "cpu_tier2": Tier.DISK,
    "storage": Tier.DISK,
    "disk": Tier.DISK,
}


class _Stored(msgspec.Struct, frozen=True):
    block_hashes: list[int | bytes]
    token_ids: list[int]
    block_size: int
    parent_block_hash: int | bytes | None = None
    lora_id: int | None = None
    medium: str | None = None
    lora_name: str | None = None
    extra_keys: list[list[Any] | None] | None = None
    group_idx: int | None = None
    kv_cache_spec_kind: str | None = None
    locality: str | None = None


class _Removed(msgspec.Struct, frozen=True):
    block_hashes: list[int | bytes]
    medium: str | None = None
    group_idx: int | None = None
    locality: str | None = None


class VllmEventStream:
    """One publisher's messages, in order, into an index.

    vLLM announces a block once for each copy it keeps, and its removal once for each copy (block_pool.py), so
    copies are counted here: a block is gone when its last copy is. A client that asks for
    kv_cache_report_mode "full" makes vLLM announce blocks that are no new copies; they cannot be told apart,
    and are then believed in for too long.
    """

    def __init__(
        self,
        worker: str,
        index: PrefixIndex,
        *,
        block_size: int,
        observe: KvEventObserver,
        dp_rank: int = 0,
        can_replay: bool = False,
    ) -> None:
        self._worker = worker
        self._index = index
        self._block_size = block_size
        self._observe = observe
        self._dp_rank = dp_rank
        self._can_replay = can_replay
        self._owners: set[WorkerRank] = set()
        self._copies: dict[tuple[WorkerRank, Tier, BlockId], int] = {}
        self._prefix_groups: dict[int, bool] = {}
        self._next: int | None = None
        self._last_live = -1
        self._told_block_size = False

    def receive(self, sequence: int, payload: bytes) -> int | None:
        """Apply a live message. Returns the sequence from which a replay is wanted first, or None.

        Where it returns one, nothing was applied: hand over what is replayed, then call `resume`.
        """
        if sequence <= self._last_live:
            self._observe(StreamOutcome.RESTARTED, 1)
            self.forget()
        self._last_live = sequence
        wanted = 0 if self._next is None else self._next
        if sequence < wanted:
            self._observe(StreamOutcome.DUPLICATE, 1)
            return None
        if sequence > wanted and self._can_replay:
            return wanted
        self.resume(sequence, payload)
        return None

    def replay(self, sequence: int, payload: bytes) -> None:
        """Apply a replayed message; what was applied before is passed over."""
        if self._next is not None and sequence < self._next:
            return
        self._observe(StreamOutcome.REPLAYED, 1)
        self.resume(sequence, payload)

    def resume(self, sequence: int, payload: bytes) -> None:
        """Apply a message, with whatever is missing before it lost. One that was replayed is passed over."""
        if self._next is not None and sequence < self._next:
            return
        if self._next is not None and sequence > self._next:
            self._observe(StreamOutcome.GAP, 1)
            self._drop_knowledge()
        self._next = sequence + 1
        try:
            self._apply(payload)
        except (KvEventError, msgspec.DecodeError, UnicodeDecodeError, OverflowError):
            self._observe(StreamOutcome.MALFORMED, 1)
            self._drop_knowledge()

    def forget(self) -> None:
        """Begin anew: the publisher restarted, or is gone."""
        self._drop_knowledge()
        self._next = None
        self._last_live = -1

    def _drop_knowledge(self) -> None:
        for owner in self._owners:
            self._index.forget(owner)
        self._owners.clear()
        self._copies.clear()

    def _apply(self, payload: bytes) -> None:
        dp_rank, events = _read_batch(msgspec.msgpack.decode(payload))
        owner = WorkerRank(self._worker, self._dp_rank if dp_rank is None else dp_rank)
        self._owners.add(owner)
        for event in events:
            kind, fields = _read_event(event)
            if kind == "BlockStored":
                self._store(owner, msgspec.convert(fields, _Stored))
            elif kind == "BlockRemoved":
                self._remove(owner, msgspec.convert(fields, _Removed))
            elif kind == "AllBlocksCleared":
                self._copies = {slot: count for slot, count in self._copies.items() if slot[0] != owner}
                self._observe(self._index.apply(Cleared(owner)), 1)
            else:
                # An event of a later release may have removed something.
                raise KvEventError("an event is of no known kind")

    def _store(self, owner: WorkerRank, event: _Stored) -> None:
        if event.kv_cache_spec_kind is not None and event.group_idx is not None:
            self._prefix_groups[event.group_idx] = event.kv_cache_spec_kind in _PREFIX_KINDS
        if len(event.token_ids) != event.block_size * len(event.block_hashes):
            raise KvEventError("an event has not block_size tokens for each block")
        if self._is_elsewhere(event) or not self._is_plain(event):
            self._observe(StreamOutcome.IGNORED, 1)
            return
        # Hashed as they travel in the token record, so that both sides make the same bytes.
        packed = TokenIds.pack(array("I", event.token_ids)).packed
        hashes = tokens_hashes(packed, event.block_size, lora_name=event.lora_name or "")
        tier = _tier(event.medium)
        blocks = []
        for block_id, tokens_hash in zip(event.block_hashes[: _plain_blocks(event)], hashes, strict=False):
            if self._index.holds(owner, block_id, tier):
                slot = (owner, tier, block_id)
                self._copies[slot] = self._copies.get(slot, 1) + 1
            blocks.append(StoredBlock(block_id, tokens_hash))
        if len(blocks) < len(event.block_hashes):
            self._observe(StreamOutcome.IGNORED, 1)
        if blocks:
            self._observe(self._index.apply(Stored(owner, event.parent_block_hash, blocks, tier)), 1)

    def _remove(self, owner: WorkerRank, event: _Removed) -> None:
        if self._is_elsewhere(event):
            self._observe(StreamOutcome.IGNORED, 1)
            return
        tier = _tier(event.medium)
        gone = [block_id for block_id in event.block_hashes if self._was_last_copy(owner, tier, block_id)]
        if gone:
            self._observe(self._index.apply(Removed(owner, gone, tier)), 1)

    def _was_last_copy(self, owner: WorkerRank, tier: Tier, block_id: BlockId) -> bool:
        slot = (owner, tier, block_id)
        copies = self._copies.pop(slot, 1)
        if copies > 2:  # noqa: PLR2004  # one less is more than one
            self._copies[slot] = copies - 1
        return copies == 1

    def _is_elsewhere(self, event: _Stored | _Removed) -> bool:
        """Whether the blocks are on another machine, or of a KV cache group that does not tell prefixes.

        A group is judged by its kind where that was told; else only the first one tells.
        """
        if event.locality == "REMOTE":
            return True
        group = event.group_idx
        return group is not None and not self._prefix_groups.get(group, group == 0)

    def _is_plain(self, event: _Stored) -> bool:
        """Whether block size and tokens are all that identifies these blocks."""
        if event.block_size != self._block_size:
            if not self._told_block_size:
                self._told_block_size = True
                _log.warning(
                    "KV events of %s have blocks of %d tokens and block_size is %d: they are ignored",
                    self._worker,
                    event.block_size,
                    self._block_size,
                )
            return False
        # Older releases number adapters and do not name them.
        return event.lora_id is None or event.lora_name is not None


def _read_batch(batch: object) -> tuple[int | None, list[Any]]:
    if isinstance(batch, dict):
        events, rank = batch.get("events"), batch.get("data_parallel_rank")
    elif isinstance(batch, list) and len(batch) > 1:
        events, rank = batch[1], batch[2] if len(batch) > 2 else None  # noqa: PLR2004  # [ts, events, rank]
    else:
        raise KvEventError("a batch is neither a map nor an array")
    if not isinstance(events, list) or not (rank is None or isinstance(rank, int)):
        raise KvEventError("a batch has no list of events, or no number as its rank")
    return rank, events


def _read_event(event: object) -> tuple[str, dict[str, Any]]:
    if isinstance(event, dict):
        return str(event.get("type")), event
    if isinstance(event, list) and event:
        names = _STORED_FIELDS if event[0] == "BlockStored" else _REMOVED_FIELDS
        return str(event[0]), dict(zip(names, event[1:], strict=False))
    raise KvEventError("an event is neither a map nor an array")


def _tier(medium: str | None) -> Tier:
    """An unnamed or unknown medium is the device: that is what the first releases meant."""
    return _TIERS.get((medium or "gpu").lower(), Tier.DEVICE)


def _plain_blocks(event: _Stored) -> int:
    """How many leading blocks are identified by tokens and LoRA adapter alone.

    Images, a cache salt or prompt embeddings are in `extra_keys` too: a text prompt never matches those.
    """
    for position, keys in enumerate(event.extra_keys or ()):
        if any(key != event.lora_name for key in keys or ()):
            return position
    return len(event.block_hashes)
