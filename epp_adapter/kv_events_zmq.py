"""vLLM's KV events over ZMQ: the sockets, and vLLM's replay protocol.

Two ways, as vLLM has them: it binds a port on each model server and we connect to all of them, or it connects
to one port that we bind, and each model server names itself in its topic, `kv@<ip or ip:port>@<model>`.

Replay: a DEALER sends [b"", first sequence] and is sent [b"", topic, sequence, batch] for each batch that the
model server still has, then one with sequence -1. Releases before 0.32 leave out the topic.
"""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final, NoReturn

import zmq.asyncio
from zmq.constants import SocketOption, SocketType
from zmq.error import ZMQError

from epp_adapter.endpoints import EndpointSource
from epp_adapter.kv_events import KvEventObserver, StreamOutcome
from epp_adapter.kv_events_vllm import VllmEventStream
from epp_adapter.routing.prefix_index import PrefixIndex

__all__ = ["VllmOptions", "follow"]

_log = logging.getLogger(__name__)

_FOLLOW_SECONDS: Final = 1.0
_ABSENCE_SECONDS: Final = 30.0
_REPLAY_SILENCE_SECONDS: Final = 2.0
_RECEIVE_HWM: Final = 100_000
_END_OF_REPLAY: Final = 2**64 - 1
_SEQUENCE_BYTES: Final = 8
_FRAMES: Final = 3
_MAX_PUBLISHERS: Final = 4096


@dataclass(frozen=True, slots=True)
class VllmOptions:
    """`bind` is the ZMQ address that we bind; None: we connect to `port` of each endpoint's ip.

    A model server with data parallelism publishes rank r on port + r, and replays on replay_port + r.
    `replay_port` None: nothing is replayed, and a gap costs what was known of its worker. `topic` is the
    prefix to subscribe to.
    """

    block_size: int
    port: int = 5557
    replay_port: int | None = None
    data_parallel_size: int = 1
    bind: str | None = None
    topic: str = ""


async def follow(
    options: VllmOptions, index: PrefixIndex, endpoints: EndpointSource, observe: KvEventObserver
) -> NoReturn:
    """Follow the events of all endpoints for ever, as they come and go. Cancelling this closes all.

    Raises OSError where `bind` cannot be had.
    """
    with zmq.asyncio.Context() as context:
        context.linger = 0
        if options.bind is not None:
            await _follow_bound(context, options, index, endpoints, observe)
        await _follow_connected(context, options, index, endpoints, observe)


async def _follow_connected(
    context: zmq.asyncio.Context,
    options: VllmOptions,
    index: PrefixIndex,
    endpoints: EndpointSource,
    observe: KvEventObserver,
) -> NoReturn:
    async with asyncio.TaskGroup() as group:
        following: dict[tuple[str, int], asyncio.Task[NoReturn]] = {}
        while True:
            present = {endpoint.address: endpoint.ip for endpoint in endpoints.current().endpoints}
            wanted = {(address, rank) for address in present for rank in range(options.data_parallel_size)}
            for source in following.keys() - wanted:
                following.pop(source).cancel()
            for address, rank in wanted - following.keys():
                stream = _stream(address, options, index, observe, rank)
                work = _follow_one(context, options, present[address], rank, stream)
                following[address, rank] = group.create_task(work)
            await asyncio.sleep(_FOLLOW_SECONDS)


def _stream(
    address: str, options: VllmOptions, index: PrefixIndex, observe: KvEventObserver, rank: int
) -> VllmEventStream:
    return VllmEventStream(
        address,
        index,
        block_size=options.block_size,
        observe=observe,
        dp_rank=rank,
        can_replay=options.replay_port is not None and options.bind is None,
    )


async def _follow_one(
    context: zmq.asyncio.Context, options: VllmOptions, ip: str, rank: int, stream: VllmEventStream
) -> NoReturn:
    """ZMQ connects again by itself, so what is to be done about an outage is what is done about a gap."""
    host = f"[{ip}]" if ":" in ip else ip
    async with _socket(context, SocketType.SUB) as socket:
        socket.setsockopt_string(SocketOption.SUBSCRIBE, options.topic)
        socket.connect(f"tcp://{host}:{options.port + rank}")
        try:
            while True:
                _, sequence, payload = await _receive(socket)
                wanted = stream.receive(sequence, payload)
                if wanted is not None and options.replay_port is not None:
                    await _replay(context, f"tcp://{host}:{options.replay_port + rank}", wanted, stream)
                    stream.resume(sequence, payload)
        finally:
            stream.forget()


async def _replay(context: zmq.asyncio.Context, address: str, first: int, stream: VllmEventStream) -> None:
    """Ask for what is missing. A model server that does not answer leaves the gap as it is."""
    async with _socket(context, SocketType.DEALER) as socket:
        socket.connect(address)
        await socket.send_multipart((b"", first.to_bytes(_SEQUENCE_BYTES, "big")))
        try:
            while True:
                async with asyncio.timeout(_REPLAY_SILENCE_SECONDS):
                    _, sequence, payload = await _receive(socket)
                if sequence == _END_OF_REPLAY:
                    return
                stream.replay(sequence, payload)
        except TimeoutError:
            _log.warning("%s does not replay KV events", address)


async def _receive(socket: Any) -> tuple[bytes, int, bytes]:
    """First frame (the topic, or empty), sequence and batch of the next message that is a KV event.

    A socket that has messages never lets go of the event loop, so this does.
    """
    while True:
        frames = await socket.recv_multipart()
        await asyncio.sleep(0)
        if len(frames) >= _FRAMES and len(frames[-2]) == _SEQUENCE_BYTES:
            return frames[0], int.from_bytes(frames[-2], "big"), frames[-1]


async def _follow_bound(
    context: zmq.asyncio.Context,
    options: VllmOptions,
    index: PrefixIndex,
    endpoints: EndpointSource,
    observe: KvEventObserver,
) -> NoReturn:
    assert options.bind is not None
    streams: dict[str, VllmEventStream] = {}
    checked = asyncio.get_running_loop().time()
    async with _socket(context, SocketType.SUB) as socket:
        socket.setsockopt_string(SocketOption.SUBSCRIBE, options.topic)
        try:
            socket.bind(options.bind)
        except ZMQError as error:
            raise OSError(f"cannot listen for KV events on {options.bind}: {error}") from error
        _log.info("KV events over ZMQ: listening on %s", options.bind)
        while True:
            topic, sequence, payload = await _receive(socket)
            now = asyncio.get_running_loop().time()
            if now - checked > _ABSENCE_SECONDS:
                checked = now
                present = {endpoint.address for endpoint in endpoints.current().endpoints}
                for gone in streams.keys() - present:
                    streams.pop(gone).forget()
                    observe(StreamOutcome.ABSENT, 1)
            address = _address_in(topic, endpoints)
            if address is None or (address not in streams and len(streams) >= _MAX_PUBLISHERS):
                observe(StreamOutcome.UNKNOWN_PUBLISHER, 1)
                continue
            if address not in streams:
                streams[address] = _stream(address, options, index, observe, 0)
            streams[address].receive(sequence, payload)


def _address_in(topic: bytes, endpoints: EndpointSource) -> str | None:
    """The endpoint that `kv@<ip or ip:port>@<model>` names; an ip alone must be of one endpoint only."""
    parts = topic.split(b"@")
    if len(parts) < 2:  # noqa: PLR2004  # the model may be missing, the endpoint may not
        return None
    named = parts[1].decode(errors="replace")
    found = [
        endpoint.address
        for endpoint in endpoints.current().endpoints
        if named in (endpoint.address, endpoint.ip)
    ]
    return found[0] if len(found) == 1 else None


@asynccontextmanager
async def _socket(context: zmq.asyncio.Context, kind: int) -> AsyncIterator[Any]:
    socket = context.socket(kind)
    socket.rcvhwm = _RECEIVE_HWM
    socket.linger = 0
    try:
        yield socket
    finally:
        socket.close()
