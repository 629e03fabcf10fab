"""KV events of a Dynamo deployment, over NATS core (ai-dynamo 1.6.1, as measured on its mocker).

Subject `namespace.<ns>.component.<c>.endpoint.<e>.kv-events`. A message is a msgpack map with publisher_id,
sequence and payload; the payload is a msgpack list of events, each with worker_id, storage_tier and an event
{event_id, dp_rank, data}. Sequences of a publisher, and event ids of a worker's rank, count up by one.
"""

import asyncio
import logging
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any, Final, NoReturn

import msgspec
import nats

from epp_adapter.kv_events import KvEventError, KvEventObserver, StreamOutcome, WorkerRoll
from epp_adapter.routing.prefix_index import (
    Cleared,
    KvEvent,
    PrefixIndex,
    Removed,
    Stored,
    StoredBlock,
    Tier,
    WorkerName,
    WorkerRank,
)

__all__ = ["DynamoEventStream", "DynamoEvents", "NatsOptions", "decode_message", "follow"]

_log = logging.getLogger(__name__)

_MAX_PUBLISHERS: Final = 4096
_RECONNECT_SECONDS: Final = 0.5
_ROLL_CALL_SECONDS: Final = 30.0
# Messages that wait for us before NATS drops them; a drop is a gap like any other.
_PENDING_MESSAGES: Final = 65_536


class _StoredBlock(msgspec.Struct, frozen=True):
    block_hash: int
    tokens_hash: int


class _StoredData(msgspec.Struct, frozen=True):
    blocks: list[_StoredBlock]
    parent_hash: int | None = None


class _RemovedData(msgspec.Struct, frozen=True):
    block_hashes: list[int]


class _Data(msgspec.Struct, frozen=True):
    stored: _StoredData | None = None
    removed: _RemovedData | None = None


class _Event(msgspec.Struct, frozen=True):
    """`data` is {"stored": ...}, {"removed": ...} or the bare word "cleared"."""

    event_id: int
    data: _Data | str
    dp_rank: int = 0


class _RouterEvent(msgspec.Struct, frozen=True):
    worker_id: int
    event: _Event
    storage_tier: str = Tier.DEVICE.value


class _Envelope(msgspec.Struct, frozen=True):
    publisher_id: int
    sequence: int
    payload: bytes


@dataclass(frozen=True, slots=True)
class DynamoEvents:
    """One message. `event_ids` stands beside `events`."""

    publisher_id: int
    sequence: int
    events: tuple[KvEvent, ...]
    event_ids: tuple[int, ...]


_envelope: Final = msgspec.msgpack.Decoder(_Envelope)
_payload: Final = msgspec.msgpack.Decoder(list[_RouterEvent])


def decode_message(message: bytes) -> DynamoEvents:
    """Read one NATS message. Raises KvEventError."""
    try:
        envelope = _envelope.decode(message)
        routed = _payload.decode(envelope.payload)
        events = tuple(_event(each) for each in routed)
    except (msgspec.DecodeError, ValueError) as error:
        # msgspec's own text names fields and types, but a tier is the sender's word.
        raise KvEventError("the message is no KV event of Dynamo's") from error
    return DynamoEvents(
        envelope.publisher_id, envelope.sequence, events, tuple(each.event.event_id for each in routed)
    )


def _event(routed: _RouterEvent) -> KvEvent:
    owner = WorkerRank(routed.worker_id, routed.event.dp_rank)
    tier = Tier(routed.storage_tier)
    data = routed.event.data
    if isinstance(data, str):
        if data != "cleared":
            raise KvEventError("an event is of no known kind")
        return Cleared(owner)
    if data.stored is not None:
        blocks = tuple(StoredBlock(block.block_hash, block.tokens_hash) for block in data.stored.blocks)
        return Stored(owner, data.stored.parent_hash, blocks, tier)
    if data.removed is not None:
        return Removed(owner, tuple(data.removed.block_hashes), tier)
    raise KvEventError("an event is of no known kind")


class _Publisher:
    __slots__ = ("next_sequence", "owners")

    def __init__(self) -> None:
        self.next_sequence: int | None = None
        self.owners: set[WorkerRank] = set()


class DynamoEventStream:
    """Applies messages to an index, and drops what it knows of a worker when a message is missing.

    Whoever loses events cannot tell what was removed, so it must not keep what it had. Dynamo's own router
    asks the worker's local indexer for all of it anew. That protocol is not spoken here: prefixes of this
    worker come back as they are stored again.
    """

    def __init__(self, index: PrefixIndex, observe: KvEventObserver) -> None:
        self._index = index
        self._observe = observe
        self._publishers: dict[int, _Publisher] = {}
        self._last_ids: dict[WorkerRank, tuple[int, int]] = {}

    def receive(self, message: bytes) -> None:
        try:
            batch = decode_message(message)
        except KvEventError:
            # Whose it was is not known; the next message of that publisher has a gap before it.
            self._observe(StreamOutcome.MALFORMED, 1)
            return
        publisher = self._publisher(batch.publisher_id)
        if publisher.next_sequence not in (None, batch.sequence):
            self._observe(StreamOutcome.GAP, 1)
            self._forget(publisher.owners)
        publisher.next_sequence = batch.sequence + 1
        for event, event_id in zip(batch.events, batch.event_ids, strict=True):
            publisher.owners.add(event.owner)
            self._check_restart(event.owner, batch.publisher_id, event_id)
            self._observe(self._index.apply(event), 1)

    def _publisher(self, publisher_id: int) -> _Publisher:
        publisher = self._publishers.get(publisher_id)
        if publisher is None:
            if len(self._publishers) >= _MAX_PUBLISHERS:
                self._forget(self._publishers.pop(next(iter(self._publishers))).owners)
            publisher = self._publishers[publisher_id] = _Publisher()
        return publisher

    def _check_restart(self, owner: WorkerRank, publisher_id: int, event_id: int) -> None:
        """In Kubernetes a worker that restarts in its pod keeps its id, and begins with an empty cache."""
        last = self._last_ids.get(owner)
        if last is not None and last[0] != publisher_id and event_id <= last[1]:
            self._observe(StreamOutcome.RESTARTED, 1)
            self._index.forget(owner)
        self._last_ids[owner] = (publisher_id, event_id)

    def _forget(self, owners: Collection[WorkerRank]) -> None:
        for owner in owners:
            self._index.forget(owner)
            self._last_ids.pop(owner, None)


@dataclass(frozen=True, slots=True)
class NatsOptions:
    """`endpoint` is the workers' "namespace.component.endpoint"."""

    servers: str
    endpoint: str

    @property
    def subject(self) -> str:
        namespace, component, endpoint = self.endpoint.removeprefix("dyn://").split(".")
        return f"namespace.{namespace}.component.{component}.endpoint.{endpoint}.kv-events"


async def follow(
    options: NatsOptions,
    stream: DynamoEventStream,
    roll: WorkerRoll,
    present: Callable[[], Collection[WorkerName]],
) -> NoReturn:
    """Follow events for ever, through any outage of NATS; `present` tells which workers are endpoints now.

    Cancelling this closes the connection.
    """

    async def receive(message: Any) -> None:
        stream.receive(message.data)

    async def report(error: Exception) -> None:
        _log.warning("KV events over NATS: %s", type(error).__name__)

    async def disconnected() -> None:
        _log.warning("KV events over NATS: disconnected; connecting again")

    async def reconnected() -> None:
        _log.info("KV events over NATS: connected again")

    connection = await _connect(options.servers, report, disconnected, reconnected)
    try:
        await connection.subscribe(options.subject, cb=receive, pending_msgs_limit=_PENDING_MESSAGES)
        _log.info("KV events over NATS: following %s", options.subject)
        while True:
            await asyncio.sleep(_ROLL_CALL_SECONDS)
            roll.call(present())
    finally:
        await connection.close()


async def _connect(servers: str, report: Any, disconnected: Any, reconnected: Any) -> Any:
    """Connect, however long NATS takes to be there: routing goes on without it."""
    while True:
        try:
            return await nats.connect(
                servers,
                error_cb=report,
                disconnected_cb=disconnected,
                reconnected_cb=reconnected,
                max_reconnect_attempts=-1,
                reconnect_time_wait=_RECONNECT_SECONDS,
            )
        except (nats.errors.Error, OSError) as error:
            await report(error)
            await asyncio.sleep(_RECONNECT_SECONDS)
