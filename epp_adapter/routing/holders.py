"""Who holds which blocks: one integer per block with one bit per holder, so that each block of a prompt is
matched against hundreds of holders with one AND.
"""

from bisect import bisect_left
from collections.abc import Hashable, Iterable, Iterator
from itertools import accumulate, repeat, takewhile
from operator import and_
from typing import Generic, TypeVar

__all__ = ["BlockHolders", "HolderBits", "longest_prefixes"]

H = TypeVar("H", bound=Hashable)


class HolderBits(Generic[H]):
    """A bit for each holder. A released bit is given to the next newcomer."""

    def __init__(self) -> None:
        self._bits: dict[H, int] = {}
        self._holders: list[H | None] = []
        self._free: list[int] = []

    def __len__(self) -> int:
        return len(self._bits)

    def __iter__(self) -> Iterator[H]:
        return iter(tuple(self._bits))

    def __contains__(self, holder: H) -> bool:
        return holder in self._bits

    def bit(self, holder: H) -> int:
        """The holder's number, given now if it has none."""
        known = self._bits.get(holder)
        if known is not None:
            return known
        if self._free:
            bit = self._free.pop()
            self._holders[bit] = holder
        else:
            bit = len(self._holders)
            self._holders.append(holder)
        self._bits[holder] = bit
        return bit

    def release(self, holder: H) -> None:
        """Take the number back. No block may name it any more."""
        bit = self._bits.pop(holder)
        self._holders[bit] = None
        self._free.append(bit)

    def holders(self, bits: Iterable[int]) -> Iterator[H]:
        """Who has each of these bits, all of which are given."""
        return map(self._holders.__getitem__, bits)  # type: ignore[arg-type]  # None stands at free bits only


class BlockHolders:
    """Block key -> the bits of those who hold the block. A block that nobody holds takes no memory."""

    def __init__(self) -> None:
        self._masks: dict[int, int] = {}

    def __len__(self) -> int:
        return len(self._masks)

    def get(self, key: int) -> int:
        return self._masks.get(key, 0)

    def get_each(self, keys: Iterable[int]) -> Iterator[int]:
        """The bits of each key's holders, as they are asked for."""
        return map(self._masks.get, keys, repeat(0))

    def add(self, key: int, bit: int) -> None:
        self._masks[key] = self._masks.get(key, 0) | 1 << bit

    def add_all(self, keys: Iterable[int], bit: int) -> None:
        masks, flag = self._masks, 1 << bit
        for key in keys:
            masks[key] = masks.get(key, 0) | flag

    def discard(self, key: int, bit: int) -> None:
        mask = self._masks.get(key, 0) & ~(1 << bit)
        if mask:
            self._masks[key] = mask
        else:
            self._masks.pop(key, None)

    def discard_all(self, keys: Iterable[int], bit: int) -> None:
        masks, others = self._masks, ~(1 << bit)
        for key in keys:
            mask = masks.get(key, 0) & others
            if mask:
                masks[key] = mask
            else:
                masks.pop(key, None)


def longest_prefixes(holders: Iterable[int]) -> dict[int, int]:
    """How many leading blocks each holder has, by its bit; who lacks the first one is absent.

    `holders` are the bits of each block's holders, in the prompt's order. They are asked for as far as
    somebody holds the prefix.
    """
    found: dict[int, int] = {}
    # Who holds all blocks up to each one: fewer and fewer, so that each leaving is found by halving.
    still = [*takewhile(bool, accumulate(holders, and_)), 0]
    depth = 0
    while mask := still[depth]:
        depth = bisect_left(still, True, lo=depth + 1, key=mask.__ne__)
        _record(mask & ~still[depth], depth, found)
    return found


def _record(mask: int, depth: int, found: dict[int, int]) -> None:
    while mask:
        lowest = mask & -mask
        found[lowest.bit_length() - 1] = depth
        mask ^= lowest
