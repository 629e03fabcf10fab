"""What both adapters of KV events share: what can become of a stream, and when a worker is forgotten."""

from collections.abc import Callable, Collection
from enum import StrEnum

from epp_adapter.routing.prefix_index import Applied, PrefixIndex, WorkerName, WorkerRank

__all__ = ["KvEventError", "KvEventObserver", "StreamOutcome", "WorkerRoll"]


class StreamOutcome(StrEnum):
    """What became of a message, beside what became of its events (`Applied`); a metric label."""

    GAP = "gap"  # messages before it are lost: what was known of its worker is dropped
    RESTARTED = "restarted"  # its worker began anew: likewise
    REPLAYED = "replayed"  # it came out of the worker's replay buffer
    DUPLICATE = "duplicate"  # it came again after a replay
    MALFORMED = "malformed"  # it cannot be read: what was known of its worker is dropped
    IGNORED = "ignored"  # its blocks are not those of a plain prompt, or of another size
    UNKNOWN_PUBLISHER = "unknown_publisher"  # it names no endpoint
    ABSENT = "absent"  # the worker is no endpoint any more, and is forgotten


KvEventObserver = Callable[[Applied | StreamOutcome, int], None]


class KvEventError(ValueError):
    """A message that cannot be read. The text is a rule; it repeats nothing of the message."""


class WorkerRoll:
    """Forgets workers that are endpoints no longer.

    No event tells that a worker died. One that is missing at two calls in a row is forgotten; at a single one
    it may be new, and not discovered yet.
    """

    def __init__(self, index: PrefixIndex, observe: KvEventObserver) -> None:
        self._index = index
        self._observe = observe
        self._missing: frozenset[WorkerRank] = frozenset()

    def call(self, present: Collection[WorkerName]) -> None:
        missing = frozenset(owner for owner in self._index.owners if owner.worker not in present)
        for owner in missing & self._missing:
            self._index.forget(owner)
            self._observe(StreamOutcome.ABSENT, 1)
        self._missing = missing
