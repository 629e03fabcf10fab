"""The nodes of a prefix tree, and how a node's children are found by text."""

from collections.abc import Iterable, Iterator
from heapq import heapify, heappop, heappush
from itertools import count
from sys import getsizeof
from typing import Final, NamedTuple

from tokenext.cut_points import CutToken

__all__ = ["Children", "LeafQueue", "Node", "Root", "Scope", "Segment", "node_bytes", "shared_length"]

# Whose texts may meet: the tokenizer, and who is isolated from whom.
Scope = tuple[str, bytes]

# What Python takes beside text and ids; a test holds them to it.
_NODE_BYTES: Final = 1024
_SEGMENT_BYTES: Final = 192
_FEW: Final = 4  # children that are simply tried in turn
_NAMED: Final = 8  # children that one sample may name
_SAMPLE: Final = 32  # characters
_SLACK: Final = 16  # nodes
_EARLY: Final = 6  # the power of two before which all long children are sampled


class Segment(NamedTuple):
    """A part of a text between two cuts: its characters, the bytes of its ids, and what it ends with."""

    length: int
    ids_length: int
    token: CutToken


def node_bytes(text: str, ids: bytes, segments: int = 1) -> int:
    """What a node with this text and these ids takes."""
    return getsizeof(text) + getsizeof(ids) + _NODE_BYTES + segments * _SEGMENT_BYTES


class Node:
    """A part of a text, its ids, and what may follow. Owned by one tree, under its lock.

    For as long as it is alive it ends in the same place; where it begins may change, and `version` with it.
    """

    __slots__ = (
        *("alive", "bytes", "children", "ids", "parent"),
        *("queued", "segments", "text", "used", "version"),
    )

    def __init__(self, parent: "Node | None", text: str, ids: bytes, segments: list[Segment]) -> None:
        self.parent = parent
        self.children: Children | None = None  # None rather than empty
        self.version = 0
        self.used = 0
        self.alive = True
        self.queued = False
        self.hold(text, ids, segments)

    def hold(self, text: str, ids: bytes, segments: list[Segment]) -> None:
        """Take another content, with the same end."""
        self.text, self.ids, self.segments = text, ids, segments
        self.bytes = node_bytes(text, ids, len(segments))
        self.version += 1

    @property
    def token(self) -> CutToken | None:
        """What it ends with; None for a root."""
        return self.segments[-1].token if self.segments else None

    def clear(self) -> None:
        """Leave the tree. Others may hold the node for a while, but not what it held."""
        self.alive, self.parent, self.children = False, None, None
        self.hold("", b"", [])


class Root(Node):
    """Where the texts of a scope begin."""

    __slots__ = ("scope",)

    def __init__(self, scope: Scope) -> None:
        super().__init__(None, "", b"", [])
        self.scope = scope


class Children:
    """The nodes below one node. Where they are many they are found by samples of their text.

    A child is entered by what stands before the largest power of two in it, which is between its middle and
    its end, where texts of one beginning have long parted; and a long one by an early sample too, which finds
    children that a text shares only the beginning of. A sample only names whom to compare.
    """

    __slots__ = ("_all", "_index", "_powers")

    def __init__(self) -> None:
        self._all: dict[Node, None] = {}
        self._index: dict[tuple[int, str], list[Node]] | None = None
        self._powers: dict[int, int] = {}  # how many children each was entered for, largest first

    def __len__(self) -> int:
        return len(self._all)

    def __iter__(self) -> Iterator[Node]:
        return iter(self._all)

    def find(self, text: str, at: int) -> Node | None:
        """The child whose whole text stands at a place in `text`."""
        if self._index is None:
            for child in self._all:
                if text.startswith(child.text, at):
                    return child
            return None
        for power in self._powers:
            for child in self._index.get((power, _sample(text, at, power)), ()):
                if text.startswith(child.text, at):
                    return child
        return None

    def closest(self, text: str, at: int, least: int) -> tuple[Node, int] | None:
        """The child that shares most with what stands at a place in `text`, and how many characters.

        It shares at least its first `least` characters, or all. Where there are many children, only those are
        looked at that have an early sample in common with the text.
        """
        found = None
        candidates: Iterable[Node] = self._all
        if self._index is not None:
            candidates = self._index.get((_EARLY, _sample(text, at, _EARLY)), ())
        for child in candidates:
            if not text.startswith(child.text[:least], at):
                continue
            shared = shared_length(text, at, child.text)
            if found is None or shared > found[1]:
                found = child, shared
        return found

    def add(self, child: Node) -> Node | None:
        """Returns the sibling that there is no room for any more, where there is one; it is still a child."""
        self._all[child] = None
        if self._index is not None:
            return self._enter(child)
        if len(self._all) > _FEW:
            self._index = {}
            for each in self._all:
                self._enter(each)  # too few for anyone to be crowded out
        return None

    def remove(self, child: Node) -> None:
        del self._all[child]
        if self._index is None:
            return
        deep = _power(child)
        for power in {deep, min(deep, _EARLY)}:
            key = (power, _sample(child.text, 0, power))
            named = self._index.get(key, [])
            if child in named:
                named.remove(child)
            if not named:
                self._index.pop(key, None)
        self._powers[deep] -= 1
        if not self._powers[deep]:
            del self._powers[deep]

    def _enter(self, child: Node) -> Node | None:
        deep = _power(child)
        self._powers[deep] = self._powers.get(deep, 0) + 1
        if self._powers[deep] == 1:
            self._powers = dict(sorted(self._powers.items(), reverse=True))
        if deep > _EARLY:
            self._name(_EARLY, child)
        return self._name(deep, child)

    def _name(self, power: int, child: Node) -> Node | None:
        """Enter a child by one sample. Returns who is crowded out of all, if any."""
        assert self._index is not None
        named = self._index.setdefault((power, _sample(child.text, 0, power)), [])
        named.append(child)
        if len(named) <= _NAMED:
            return None
        elsewhere = next((each for each in named if _power(each) > power), None)
        if elsewhere is not None:  # its other sample still finds it
            named.remove(elsewhere)
            return None
        return min(named[:-1], key=lambda each: each.used)


class LeafQueue:
    """Leaves in the order of their last use. A node that is used, grows or leaves stays where it is in here.

    So using a node costs nothing, and what is out of date is put right when its turn comes.
    """

    __slots__ = ("_heap", "_serial")

    def __init__(self) -> None:
        self._heap: list[tuple[int, int, Node]] = []  # each node at most once
        self._serial = count()  # nodes have no order of their own

    def add(self, leaf: Node) -> None:
        """Does nothing for a node that is in here."""
        if leaf.queued:
            return
        leaf.queued = True
        heappush(self._heap, (leaf.used, next(self._serial), leaf))

    def pop(self) -> Node | None:
        """The leaf whose last use is longest ago."""
        while self._heap:
            used, _, leaf = heappop(self._heap)
            leaf.queued = False
            if not leaf.alive or leaf.children is not None:
                continue  # a node with children is added again when they are gone
            if leaf.used == used:
                return leaf
            self.add(leaf)
        return None

    def tidy(self, alive: int) -> None:
        """Drop dead nodes where they are more than there are living ones."""
        if len(self._heap) > 2 * alive + _SLACK:
            self._heap = [entry for entry in self._heap if entry[2].alive]
            heapify(self._heap)


def _power(node: Node) -> int:
    return len(node.text).bit_length() - 1


def _sample(text: str, at: int, power: int) -> str:
    end = at + (1 << power)
    return text[max(at, end - _SAMPLE) : end]


def shared_length(text: str, at: int, other: str) -> int:
    """How many characters of `other` stand at a place in `text`."""
    limit = min(len(other), len(text) - at)
    low, step = 0, _SAMPLE
    # Further and further, then nearer and nearer; what was found equal is not compared again.
    while low < limit and text[at + low : at + low + step] == other[low : low + step]:
        low, step = low + step, step * 2
    low, high = min(low, limit), min(low + step, limit)
    while low < high:
        middle = (low + high + 1) // 2
        if text[at + low : at + middle] == other[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low
