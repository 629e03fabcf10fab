"""Who holds which blocks: one integer per block with one bit per holder, so that each block of a prompt is
matched against hundreds of holders with one AND.
"""

from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
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

    def holder(self, bit: int) -> H:
        holder = self._holders[bit]
        if holder is None:
            raise KeyError(bit)
        return holder


class BlockHolders:
    """Block key -> the bits of those who hold the block. A block that nobody holds takes no memory."""

    def __init__(self) -> None:
        self._masks: dict[int, int] = {}

    def __len__(self) -> int:
        return len(self._masks)

    def get(self, key: int) -> int:
        return self._masks.get(key, 0)

    def add(self, key: int, bit: int) -> None:
        self._masks[key] = self._masks.get(key, 0) | 1 << bit

    def discard(self, key: int, bit: int) -> None:
        mask = self._masks.get(key, 0) & ~(1 << bit)
        if mask:
            self._masks[key] = mask
        else:
            self._masks.pop(key, None)

    def discard_all(self, keys: Iterable[int], bit: int) -> None:
        for key in keys:
            self.discard(key, bit)


def longest_prefixes(keys: Sequence[int], held: Callable[[int], int]) -> dict[int, int]:
    """How many leading keys each holder has, by its bit; who lacks the first one is absent.

    `held` tells the bits of a key's holders.
    """
    found: dict[int, int] = {}
    still = -1
    depth = 0
    for key in keys:
        now = still & held(key)
        if now != still:
            if depth:
                _record(still & ~now, depth, found)
            if not now:
                return found
            still = now
        depth += 1
    if depth:
        _record(still, depth, found)
    return found


def _record(mask: int, depth: int, found: dict[int, int]) -> None:
    while mask:
        lowest = mask & -mask
        found[lowest.bit_length() - 1] = depth
        mask ^= lowest
