"""What is known of texts by their beginnings: a tree of texts and their ids, bounded in bytes.

A path from a root spells the beginning of a text, and its nodes' ids are that beginning's ids. Texts are
divided at cut points (cut_points.py), so a text may go on from any of them. Conversations share what they
have in common: the next turn adds only its own text, and a branch or an edited turn leaves the path where it
differs. Text is compared as text, character for character; nothing is believed of a hash.

Nodes that follow each other without a branch are joined, those of like size first, as in a log-structured
merge: a conversation of hundreds of turns lies in a few long strings, which memory gives much faster than
hundreds of short ones, and a character is copied only as often as its conversation doubles. Where such a node
was divided before stays known.

Nodes leave the tree from the ends of its branches, least recently used first.
"""

from dataclasses import dataclass
from threading import Lock
from typing import Final, NamedTuple

from extproc.token_metadata import BYTES_PER_ID
from tokenext.cut_points import Cut, CutPoints, CutToken
from tokenext.prefix_nodes import Children, LeafQueue, Node, Root, Scope, Segment, node_bytes

__all__ = ["Growth", "Known", "PrefixSnapshot", "PrefixTree", "Scope"]

_LARGEST_SHARE: Final = 4  # what takes more than the budget / this is not kept: it would cost too many others


@dataclass(frozen=True, slots=True)
class PrefixSnapshot:
    """Counts since the start, and the size of the moment.

    A hit is a text that was known up to where it would be cut; a partial hit was known up to an earlier cut,
    as the next turn of a conversation is; a miss was not known at all. `entries` are nodes.
    """

    hits: int = 0
    partial_hits: int = 0
    misses: int = 0
    tokens_reused: int = 0
    tokens_encoded: int = 0
    evictions: int = 0
    entries: int = 0
    bytes: int = 0
    budget_bytes: int = 0


class _Partly(NamedTuple):
    """A node that a text shares only the beginning of: its first `segments`, as of a version of the node."""

    node: Node
    segments: int
    version: int


class Known(NamedTuple):
    """What a tree knows of a text: `parts` are the ids of text[:end], which ends with `token`.

    `end` is 0 and `token` None where nothing is known. `fork` is a later cut, up to which the text is the
    same as another one whose ids up to there are not known by themselves.
    """

    end: int
    token: CutToken | None
    parts: tuple[bytes, ...]
    fork: Cut | None
    whole: Node  # the last node that the text has all of, or the root
    partly: _Partly | None


class Growth(NamedTuple):
    """A segment of a text, from the last place that was known or forked to a cut, and its ids."""

    text: str
    ids: bytes
    token: CutToken


class PrefixTree:
    """The one owner of what is known. May be used from any thread; its lock is held for look-ups only."""

    def __init__(self, budget_bytes: int) -> None:
        """`budget_bytes` bounds what all texts, ids and nodes take together, over all scopes."""
        if budget_bytes <= 0:
            raise ValueError("a tree needs a budget")
        self._budget: Final = budget_bytes
        self._lock: Final = Lock()
        self._roots: Final[dict[Scope, Root]] = {}
        self._leaves: Final = LeafQueue()
        self._time = 0
        self._bytes = self._entries = self._evictions = 0
        self._hits = self._partial_hits = self._misses = 0
        self._reused = self._encoded = 0

    def find(self, scope: Scope, text: str, cut_points: CutPoints) -> Known:
        """The longest known beginning of a text."""
        with self._lock:
            self._time += 1
            # A new root enters the tree with its first child.
            node: Node = self._roots.get(scope) or Root(scope)
            end = 0
            parts: list[bytes] = []
            while node.children is not None:
                child = node.children.find(text, end)
                if child is None:
                    closest = node.children.closest(text, end, cut_points.least)
                    if closest is None:
                        break
                    child, shared = closest
                    if shared < len(child.text):
                        known = Known(end, node.token, tuple(parts), None, node, None)
                        return self._parting(known, child, text, shared, cut_points)
                end += len(child.text)
                parts.append(child.ids)
                child.used = self._time
                node = child
            return Known(end, node.token, tuple(parts), None, node, None)

    def learn(
        self, scope: Scope, known: Known, *, fork_ids: bytes | None, growth: Growth | None, encoded: int
    ) -> None:
        """Keep what was found out about a text after `known`, and count it.

        `fork_ids` are the ids from `known.end` to the fork, None where there is none; `growth` follows them.
        `encoded` is the number of ids that the engine had to find. What does not fit to the tree any more,
        because another thread was faster or memory was needed, is not kept.
        """
        with self._lock:
            self._count(known, encoded, grown=growth is not None)
            if growth is not None:
                size = node_bytes(growth.text, growth.ids)
                if size > self._budget // _LARGEST_SHARE:
                    growth = None
                else:
                    self._evict(self._budget - size)
            if growth is None and fork_ids is None:
                return
            node = self._standing(scope, known, fork_ids)
            if node is not None and growth is not None:
                self._grow(node, growth)
            self._evict(self._budget)
            self._leaves.tidy(self._entries)
            root = self._roots.get(scope)
            if root is not None and root.children is None:
                self._forget(root)

    def snapshot(self) -> PrefixSnapshot:
        with self._lock:
            return PrefixSnapshot(
                hits=self._hits,
                partial_hits=self._partial_hits,
                misses=self._misses,
                tokens_reused=self._reused,
                tokens_encoded=self._encoded,
                evictions=self._evictions,
                entries=self._entries,
                bytes=self._bytes,
                budget_bytes=self._budget,
            )

    def _parting(self, known: Known, child: Node, text: str, shared: int, cut_points: CutPoints) -> Known:
        """What more is known of a text that goes on with the first `shared` characters of a child."""
        end, token = known.end, known.token
        until = end + shared
        segments = ids_length = 0
        for segment in child.segments:
            if end + segment.length > until:
                break
            segments, token = segments + 1, segment.token
            end, ids_length = end + segment.length, ids_length + segment.ids_length
        parts = known.parts
        if segments:
            child.used = self._time
            parts = (*parts, child.ids[:ids_length])
        cut = cut_points.last(text, end, until)
        fork = cut if cut is not None and cut.end - end >= cut_points.least else None
        return Known(end, token, parts, fork, known.whole, _Partly(child, segments, child.version))

    def _count(self, known: Known, encoded: int, *, grown: bool) -> None:
        self._reused += sum(map(len, known.parts)) // BYTES_PER_ID
        self._encoded += encoded
        if not known.end:
            self._misses += 1
        elif grown:
            self._partial_hits += 1
        else:
            self._hits += 1

    def _standing(self, scope: Scope, known: Known, fork_ids: bytes | None) -> Node | None:
        """The node that ends where the text leaves the tree, made if need be; None if it is gone."""
        node = known.whole
        if isinstance(node, Root):
            node = self._root(scope)
        elif not node.alive:
            return None
        if known.partly is None or not (known.partly.segments or known.fork):
            return node
        child, segments, version = known.partly
        if child.parent is not node or child.version != version:
            return None
        if segments:
            node = self._divide(child, child.segments[:segments], child.segments[segments:])
        if known.fork is not None and fork_ids is not None:
            first = child.segments[0]
            upper = Segment(known.fork.end - known.end, len(fork_ids), known.fork.token)
            lower = Segment(first.length - upper.length, first.ids_length - upper.ids_length, first.token)
            if lower.ids_length <= 0 or not child.ids.startswith(fork_ids):
                return None  # an engine whose ids for one beginning differ is not to be built on
            node = self._divide(child, [upper], [lower, *child.segments[1:]])
        return node

    def _root(self, scope: Scope) -> Root:
        root = self._roots.get(scope)
        if root is None:
            root = self._roots[scope] = Root(scope)
            self._bytes += root.bytes
        return root

    def _forget(self, root: Root) -> None:
        del self._roots[root.scope]
        self._bytes -= root.bytes

    def _grow(self, node: Node, growth: Growth) -> None:
        if node.children is not None and node.children.find(growth.text, 0) is not None:
            return  # another thread was faster
        segment = Segment(len(growth.text), len(growth.ids), growth.token)
        leaf = Node(node, growth.text, growth.ids, [segment])
        self._enter(leaf)
        self._link(node, leaf)
        self._join_upwards(leaf)

    def _join_upwards(self, node: Node) -> None:
        """Join a node with those before it that lead only to it and are not much longer."""
        while True:
            above = node.parent
            if above is None or isinstance(above, Root) or len(above.children or ()) != 1:
                return
            if (
                len(above.text) >= 2 * len(node.text)
                or above.bytes + node.bytes > self._budget // _LARGEST_SHARE
            ):
                return
            before = above.parent
            assert before is not None
            assert before.children is not None
            before.children.remove(above)
            self._bytes -= above.bytes + node.bytes
            self._entries -= 1
            node.hold(above.text + node.text, above.ids + node.ids, above.segments + node.segments)
            self._bytes += node.bytes
            above.clear()
            self._link(before, node)

    def _divide(self, node: Node, upper: list[Segment], lower: list[Segment]) -> Node:
        """Divide a node between its segments. Returns the new node that is now before it."""
        parent = node.parent
        assert parent is not None
        assert parent.children is not None
        parent.children.remove(node)
        self._bytes -= node.bytes
        length, ids_length = sum(each.length for each in upper), sum(each.ids_length for each in upper)
        above = Node(parent, node.text[:length], node.ids[:ids_length], upper)
        node.hold(node.text[length:], node.ids[ids_length:], lower)
        self._bytes += node.bytes
        self._enter(above)
        self._link(parent, above)
        self._link(above, node)
        return above

    def _enter(self, node: Node) -> None:
        node.used = self._time
        self._entries += 1
        self._bytes += node.bytes
        self._leaves.add(node)

    def _link(self, parent: Node, child: Node) -> None:
        if parent.children is None:
            parent.children = Children()
        child.parent = parent
        crowded_out = parent.children.add(child)
        if crowded_out is not None:
            self._remove(crowded_out)

    def _evict(self, limit: int) -> None:
        """Remove leaves until the tree takes at most `limit` bytes, or is empty."""
        while self._bytes > limit and (leaf := self._leaves.pop()) is not None:
            self._remove(leaf)

    def _remove(self, node: Node) -> None:
        """Take a node and all that grows from it out of the tree."""
        parent = node.parent
        assert parent is not None
        assert parent.children is not None
        parent.children.remove(node)
        if not parent.children:
            parent.children = None
            if isinstance(parent, Root):
                self._forget(parent)
            else:
                self._leaves.add(parent)
        leaving = [node]
        while leaving:
            gone = leaving.pop()
            leaving.extend(gone.children or ())
            self._bytes -= gone.bytes
            self._entries -= 1
            self._evictions += 1
            gone.clear()
