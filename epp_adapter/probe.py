"""Probes of endpoints that are suspected: does it answer, and (Dynamo) is the worker behind it alive?

Measured on Dynamo 1.6: the front end beside a killed worker goes on answering /health with 200, and lists the
worker's instance for 8 s. But it says where the worker listens, and there nobody listens any more. After
those 8 s the instance is no longer listed. Both show that the worker is gone, without a request being made.
It is asked last whether the worker is listed: one that goes on after its lease listens, and is not.

A stopped worker is listed as long, and its kernel still takes connections. But where we close half of one,
a live worker closes the other (after 0.3 to 40 ms), and a stopped one cannot. Nothing promises that, and what
is between us and the workers may keep the close from them: so silence counts only where another worker of the
same list hangs up.
"""

import asyncio
import errno
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from enum import Enum, auto
from itertools import islice
from typing import Any, Final, NoReturn, Protocol

import aiohttp
import orjson

from epp_adapter.bounded_body import bounded_body
from epp_adapter.endpoints import Endpoint, EndpointSource
from epp_adapter.passive_health import PassiveHealth

__all__ = ["FakeProbe", "HttpProbe", "Probe", "ProbeOptions", "Prober"]

_POLL_SECONDS: Final = 0.1
_MAX_BODY_BYTES: Final = 4 * 1024 * 1024  # /health of a Dynamo front end lists every instance
_SERVER_ERROR: Final = 500
_MAX_COMPARED: Final = 3
_MAX_PORT: Final = 65_535
_NOBODY_LISTENS: Final = frozenset({errno.ECONNREFUSED, errno.EHOSTUNREACH, errno.ENETUNREACH})


class Probe(Protocol):
    """Asks one endpoint whether requests may go to it again. Never raises but CancelledError."""

    async def alive(self, endpoint: Endpoint) -> bool: ...


class FakeProbe:
    """Says what its mapping says, else `otherwise`: the fake of the seam above."""

    def __init__(self, answers: Mapping[str, bool] | None = None, *, otherwise: bool = True) -> None:
        self.answers = dict(answers or {})
        self.otherwise = otherwise
        self.asked: list[str] = []

    async def alive(self, endpoint: Endpoint) -> bool:
        self.asked.append(endpoint.address)
        return self.answers.get(endpoint.address, self.otherwise)


@dataclass(frozen=True, slots=True)
class ProbeOptions:
    """`path` is what vLLM, SGLang, TensorRT-LLM and Dynamo's front end all serve by default."""

    path: str = "/health"
    timeout_seconds: float = 1.0


class _Reaction(Enum):
    """What a worker does about a connection that says nothing."""

    REFUSAL = auto()
    HANG_UP = auto()
    SILENCE = auto()
    UNKNOWN = auto()


_Address = tuple[str, int]


class HttpProbe:
    """GET `path`. Alive is whoever answers below 500: also a 404 shows that somebody is there."""

    def __init__(self, session: aiohttp.ClientSession, options: ProbeOptions) -> None:
        self._session = session
        self._options = options
        self._timeout = aiohttp.ClientTimeout(total=options.timeout_seconds)

    async def alive(self, endpoint: Endpoint) -> bool:
        workers = await self._listed(endpoint)
        if workers is None:
            return True
        instance = str(endpoint.dynamo_instance_id)
        if instance not in workers or not await self._is_up(workers[instance], workers.values()):
            return False
        # A worker that hung may lose its lease, and then go on and hang up, all while it is asked.
        workers = await self._listed(endpoint)
        return workers is None or instance in workers

    async def _listed(self, endpoint: Endpoint) -> Mapping[str, _Address | None] | None:
        """Where the workers listen that the endpoint knows, by instance id. Who does not answer knows none.
        None: it answers, and says nothing against any.
        """
        url = f"http://{endpoint.address}{self._options.path}"
        try:
            async with self._session.get(url, timeout=self._timeout, allow_redirects=False) as response:
                if response.status >= _SERVER_ERROR:
                    return {}
                if endpoint.dynamo_instance_id is None:
                    return None
                return _workers(await bounded_body(response, _MAX_BODY_BYTES))
        except (aiohttp.ClientError, OSError, TimeoutError):
            return {}

    async def _is_up(self, worker: _Address | None, listed: Collection[_Address | None]) -> bool:
        """Whether the worker there is alive; `listed` are to compare it with. None: an address not told."""
        if worker is None:
            return True
        reaction = await self._knock(*worker)
        if reaction is not _Reaction.SILENCE:
            return reaction is not _Reaction.REFUSAL
        others = {each for each in listed if each not in (None, worker)}
        compared = await asyncio.gather(*(self._knock(*each) for each in islice(others, _MAX_COMPARED)))
        return _Reaction.HANG_UP not in compared

    async def _knock(self, host: str, port: int) -> _Reaction:
        """Connect, say nothing, and close our half. A port may be closed to us and open to its front end."""
        try:
            async with asyncio.timeout(self._options.timeout_seconds):
                reader, writer = await asyncio.open_connection(host, port)
        except TimeoutError:
            return _Reaction.UNKNOWN
        except OSError as error:
            return _Reaction.REFUSAL if error.errno in _NOBODY_LISTENS else _Reaction.UNKNOWN
        try:
            writer.write_eof()
            async with asyncio.timeout(self._options.timeout_seconds):
                await reader.read(1)
        except TimeoutError:
            return _Reaction.SILENCE
        except OSError:
            return _Reaction.HANG_UP  # in its own way
        finally:
            writer.close()
        return _Reaction.HANG_UP


def _workers(body: bytes) -> Mapping[str, _Address | None] | None:
    """The workers that a front end's /health lists. None: it is no such list."""
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError:
        return None
    instances = document.get("instances") if isinstance(document, dict) else None
    if not isinstance(instances, list):
        return None
    workers: dict[str, _Address | None] = {}
    for instance in instances:
        if isinstance(instance, dict):
            address = _tcp_address(instance.get("transport"))
            workers.setdefault(str(instance.get("instance_id")), address)
    return workers


def _tcp_address(transport: Any) -> _Address | None:
    text = transport.get("tcp") if isinstance(transport, dict) else None
    if not isinstance(text, str):
        return None
    host, _, port = text.partition("/")[0].rpartition(":")
    usable = host and port.isascii() and port.isdigit() and int(port) <= _MAX_PORT
    return (host.strip("[]"), int(port)) if usable else None


class Prober:
    """Probes what is due and tells PassiveHealth, for as long as `run` runs."""

    def __init__(
        self,
        health: PassiveHealth,
        endpoints: EndpointSource,
        probe: Probe,
        clock: Callable[[], float],
        *,
        concurrency: int = 16,
    ) -> None:
        self._health = health
        self._endpoints = endpoints
        self._probe = probe
        self._clock = clock
        self._concurrency = concurrency
        self._probing: set[asyncio.Task[None]] = set()

    async def run(self, poll_seconds: float = _POLL_SECONDS) -> NoReturn:
        try:
            while True:
                self.tick()
                await asyncio.sleep(poll_seconds)
        finally:
            for task in self._probing:
                task.cancel()

    def tick(self) -> None:
        """Start the probes that are due."""
        self._health.keep_only(self._endpoints.current().endpoints)
        free = self._concurrency - len(self._probing)
        for endpoint in self._health.due(self._clock(), limit=free):
            task = asyncio.create_task(self._ask(endpoint))
            self._probing.add(task)
            task.add_done_callback(self._probing.discard)

    async def _ask(self, endpoint: Endpoint) -> None:
        alive = await self._probe.alive(endpoint)
        self._health.probed(endpoint, alive=alive, now=self._clock())
