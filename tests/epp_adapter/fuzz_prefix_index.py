"""The exact prefix index against a model that is too simple to be wrong.

`python -m tests.epp_adapter.fuzz_prefix_index --sequences 10000` runs it in full; the suite runs a part.

The model keeps, for each cache and tier, the block ids it holds and the whole token path of each, and answers
a prompt by trying every length. A world gives every token path its block id, as engines do. Some ids are
shared by two caches for different paths, some paths have several ids, and some ids change their meaning,
because none of it may matter.
"""

import argparse
import random
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

from epp_adapter.routing.prefix_index import (
    Applied,
    BlockId,
    Cleared,
    KvEvent,
    PrefixIndex,
    PrefixMatch,
    Removed,
    Stored,
    StoredBlock,
    Tier,
    WorkerRank,
)
from extproc.dynamo_blocks import block_keys, tokens_hashes
from extproc.token_metadata import TokenIds

BLOCK_SIZE = 2
VOCABULARY = 3  # few tokens, so that paths meet again and again
OWNERS = tuple(WorkerRank(worker, rank) for worker in (1, "127.0.0.1:8000", 2**64 - 1) for rank in (0, 1))
TIERS = (Tier.DEVICE, Tier.DEVICE, Tier.HOST_PINNED, Tier.DISK)

Path = tuple[int, ...]


def tokens_hash(path: Path) -> int:
    """Of the last block of a path."""
    (last,) = tokens_hashes(TokenIds.pack(path[-BLOCK_SIZE:]).packed, BLOCK_SIZE)
    return last


@dataclass
class Model:
    """Everything by hand: (owner, tier) -> block id -> token path. `capacity` is the index's bound."""

    capacity: int
    held: dict[tuple[WorkerRank, Tier], dict[BlockId, Path]] = field(default_factory=dict)

    def size(self) -> int:
        return sum(map(len, self.held.values()))

    def path_of(self, owner: WorkerRank, block_id: BlockId) -> Path | None:
        for tier in Tier:
            path = self.held.get((owner, tier), {}).get(block_id)
            if path is not None:
                return path
        return None

    def apply(self, event: KvEvent, paths: list[Path]) -> None:
        """`paths` are the token paths that a stored event's blocks were made from, the last tokens of which
        follow whatever the parent's id means now.
        """
        if isinstance(event, Cleared):
            for tier in Tier:
                self.held.pop((event.owner, tier), None)
        elif isinstance(event, Removed):
            blocks = self.held.get((event.owner, event.tier), {})
            for block_id in event.block_ids:
                blocks.pop(block_id, None)
        else:
            parent = () if event.parent is None else self.path_of(event.owner, event.parent)
            if parent is None:
                return
            for block, path in zip(event.blocks, paths, strict=True):
                blocks = self.held.setdefault((event.owner, event.tier), {})
                if block.block_id not in blocks and self.size() >= self.capacity:
                    return
                parent += path[-BLOCK_SIZE:]
                blocks[block.block_id] = parent

    def match(self, prompt: Path, owner: WorkerRank) -> PrefixMatch | None:
        device = set(self.held.get((owner, Tier.DEVICE), {}).values())
        anywhere = {path for tier in Tier for path in self.held.get((owner, tier), {}).values()}

        def longest(held: set[Path]) -> int:
            blocks = 0
            while (blocks + 1) * BLOCK_SIZE <= len(prompt) and prompt[: (blocks + 1) * BLOCK_SIZE] in held:
                blocks += 1
            return blocks

        found = PrefixMatch(longest(device), longest(anywhere))
        return found if found.blocks else None


class World:
    """Random events, from the sane to those that only a confused engine sends."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self._ids: dict[tuple[WorkerRank, Path, int], BlockId] = {}
        self._own: dict[WorkerRank, list[BlockId]] = {}

    def block_id(self, owner: WorkerRank, path: Path) -> BlockId:
        own = self._own.setdefault(owner, [])
        if own and self.random.random() < 0.02:
            return self.random.choice(own)
        slot = (owner, path, self.random.choice((0, 0, 0, 0, 0, 1, 2)))
        if slot not in self._ids:
            number = len(self._ids)
            chosen: BlockId = number if number % 2 else number.to_bytes(32, "big")
            others = self._own.get(self.random.choice(OWNERS))
            if others and self.random.random() < 0.2:
                taken = self.random.choice(others)
                chosen = chosen if taken in own else taken
            self._ids[slot] = chosen
            own.append(chosen)
        return self._ids[slot]

    def path(self) -> Path:
        blocks = self.random.randint(1, 6)
        return tuple(self.random.randrange(VOCABULARY) for _ in range(blocks * BLOCK_SIZE))

    def events(self, count: int) -> Iterator[tuple[KvEvent, list[Path]]]:
        for _ in range(count):
            owner, tier = self.random.choice(OWNERS), self.random.choice(TIERS)
            kind = self.random.random()
            if kind < 0.62:
                yield self._stored(owner, tier)
            elif kind < 0.98:
                known = self._own.get(owner) or [999_999]
                chosen = tuple(self.random.choices(known, k=self.random.randint(1, 3)))
                yield Removed(owner, chosen, tier), []
            else:
                yield Cleared(owner), []

    def _stored(self, owner: WorkerRank, tier: Tier) -> tuple[KvEvent, list[Path]]:
        path = self.path()
        after = self.random.randint(0, len(path) // BLOCK_SIZE - 1)
        ends = range((after + 1) * BLOCK_SIZE, len(path) + 1, BLOCK_SIZE)
        paths = [path[:end] for end in ends]
        parent = self.block_id(owner, path[: after * BLOCK_SIZE]) if after else None
        blocks = tuple(StoredBlock(self.block_id(owner, each), tokens_hash(each)) for each in paths)
        return Stored(owner, parent, blocks, tier), paths


def run_sequence(seed: int) -> int:
    """Play one random sequence into both. Returns how many comparisons were made; asserts on each."""
    world = World(seed)
    capacity = world.random.choice((1_000_000, 1_000_000, 25))
    index, model = PrefixIndex(capacity), Model(capacity)
    compared = 0
    for event, paths in world.events(world.random.randint(5, 60)):
        before = model.size()
        applied = index.apply(event)
        model.apply(event, paths)
        orphan = applied is Applied.ORPHANED
        assert not orphan or model.size() == before, f"seed {seed}: an orphan changed the model"
        assert index.blocks == model.size(), f"seed {seed}: {index.blocks} blocks, not {model.size()}"
        for _ in range(2):
            prompt = world.path() + (0,) * world.random.randrange(BLOCK_SIZE)
            keys = block_keys(TokenIds.pack(prompt).packed, BLOCK_SIZE)
            found = index.matches(keys)
            expected = {owner: match for owner in OWNERS if (match := model.match(prompt, owner))}
            assert found == expected, f"seed {seed}: {prompt} gives {found}, not {expected}"
            assert set(index.best_matches(keys)) == {owner.worker for owner in found}, f"seed {seed}"
            compared += 1
    for owner in index.owners:
        index.forget(owner)
    assert index.blocks == 0
    assert not len(index._bits)
    assert not index._device._masks
    assert not index._lower._masks, f"seed {seed}: forgetting all owners left blocks"
    return compared


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sequences", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0, help="the first sequence's seed")
    options = parser.parse_args()
    started = time.perf_counter()
    compared = sum(run_sequence(options.seed + number) for number in range(options.sequences))
    seconds = time.perf_counter() - started
    print(  # noqa: T201  # its result
        f"{options.sequences} sequences, {compared} matches compared, all equal, in {seconds:.1f} s"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
