"""The last turns of conversations: what need not be read and rendered again when the next turn comes.

A conversation's next request repeats its messages, byte for byte, and adds some. So they are found by their
bytes: where the `messages` of a request begin with all bytes of an earlier one's, the first messages are the
earlier ones, already parsed and checked. No hash is trusted, and nothing is shared between `cache_salt`s.

Of a conversation that goes on only the longest turn is kept; of all, the latest used within a budget.
"""

from collections import OrderedDict
from dataclasses import dataclass
from threading import Lock
from typing import Final

from tokenext.turns import Conversation

__all__ = ["ConversationSnapshot", "Conversations"]

# Shorter ones cost more to remember than to render.
_SHORTEST_BYTES: Final = 2_048
_SAMPLE_BYTES: Final = 32
_SIBLINGS: Final = 8

_Place = tuple[str, int, bytes]


@dataclass(frozen=True, slots=True)
class ConversationSnapshot:
    """Counts since the start, and what is held now."""

    continued: int
    new: int
    evictions: int
    entries: int
    bytes: int
    budget_bytes: int


@dataclass(slots=True)
class _Held:
    conversation: Conversation
    place: _Place
    size: int


class Conversations:
    """Owns what is remembered. Thread-safe."""

    def __init__(self, budget_bytes: int) -> None:
        self._budget_bytes: Final = budget_bytes
        self._lock: Final = Lock()
        # By the conversation's identity; the latest used is the last.
        self._held: OrderedDict[int, _Held] = OrderedDict()
        self._places: dict[_Place, list[int]] = {}
        self._bytes = self._continued = self._new = self._evictions = 0

    def find(self, isolation: str, text: bytes, start: int = 0) -> Conversation | None:
        """The longest remembered turn that the JSON array of messages goes on from that begins at `start`."""
        if len(text) - start < _SHORTEST_BYTES:
            return None
        with self._lock:
            found = self._longest(isolation, text, start)
            if found is not None:
                self._continued += 1
                self._held.move_to_end(id(found))
            return found

    def keep(self, isolation: str, conversation: Conversation, before: Conversation | None) -> None:
        """Remember a turn, in the place of the one before."""
        length, size = len(conversation.text), conversation.size
        if length < _SHORTEST_BYTES or size > self._budget_bytes:
            return
        place = _place(isolation, conversation.text, 1 << (length.bit_length() - 1))
        with self._lock:
            if before is None:
                self._new += 1
            else:
                self._drop(id(before))
            for sibling in tuple(self._places.get(place, ())):
                if self._held[sibling].conversation.text == conversation.text:
                    self._drop(sibling)
            if len(self._places.get(place, ())) >= _SIBLINGS:
                self._evict(self._places[place][0])
            self._places.setdefault(place, []).append(id(conversation))
            self._held[id(conversation)] = _Held(conversation, place, size)
            self._bytes += size
            while self._bytes > self._budget_bytes:
                self._evict(next(iter(self._held)))

    def snapshot(self) -> ConversationSnapshot:
        with self._lock:
            return ConversationSnapshot(
                self._continued, self._new, self._evictions, len(self._held), self._bytes, self._budget_bytes
            )

    def _longest(self, isolation: str, text: bytes, start: int) -> Conversation | None:
        size = 1 << ((len(text) - start).bit_length() - 1)
        while size >= _SHORTEST_BYTES // 2:
            fitting = [
                held
                for each in self._places.get(_place(isolation, text, size, start), ())
                if text.startswith((held := self._held[each].conversation).text, start)
                and text[start + len(held.text) :].lstrip()[:1] in (b",", b"]")
            ]
            if fitting:
                return max(fitting, key=lambda held: len(held.text))
            size >>= 1
        return None

    def _evict(self, key: int) -> None:
        self._drop(key)
        self._evictions += 1

    def _drop(self, key: int) -> None:
        held = self._held.pop(key, None)
        if held is None:
            return
        self._bytes -= held.size
        siblings = self._places[held.place]
        siblings.remove(key)
        if not siblings:
            del self._places[held.place]


def _place(isolation: str, text: bytes, size: int, start: int = 0) -> _Place:
    """Where a turn is looked for: by a sample of its bytes in front of the largest power of two."""
    return isolation, size, text[start + size - _SAMPLE_BYTES : start + size]
