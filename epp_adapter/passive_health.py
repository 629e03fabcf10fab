"""Passive health: endpoints that failed are set aside, by what responses and scrapes say of them.

Theory. Readiness (a file, Kubernetes) is late: a killed worker stays ready for seconds, and Dynamo's router
still picks it for 9 s. The first failed request is earlier than both. From it on the endpoint is set aside
for a time that doubles with each further failure. When the time is over the endpoint is `due`: it is probed,
and only a probe that answers brings requests back, so that no client is the probe. A success then ends the
doubling.

Set aside is a suspicion, so it never empties the pool: where every candidate is set aside, all of them are
used. Down is knowledge (the probe failed too), and an endpoint that is down is not used even then: the client
gets its 503 at once.

A worker that hangs fails no request at once: its front end answers 504 after seconds, and later 400, since
it does not know the worker any more. Either may as well be one request's own doing. So they are doubts: the
endpoint is probed while requests go on to it. Several 504 in a row are a failure, whatever the probe says.

Pure: the caller brings the clock. What an endpoint is (`identity`) includes its Dynamo instance, so a worker
that comes back under a new instance id has no past.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

from epp_adapter.doubts import Doubts
from epp_adapter.endpoints import AddressError, Destination, Endpoint, Identity, canonical_address

__all__ = [
    "Failure",
    "Feedback",
    "HealthChange",
    "HealthOptions",
    "PassiveHealth",
    "Served",
    "Transition",
    "read_feedback",
]

# Bad gateway and unavailable: what Envoy answers where it could not connect or the connection broke before a
# response, and what a model server answers that cannot serve. 500 may be one request's own doing.
_NOT_SERVED: Final = frozenset({502, 503})
_TIMED_OUT: Final = 504
# What a Dynamo front end (400) answers to a pin to a worker that it does not know, or has no model of (404).
_PIN_UNKNOWN: Final = frozenset({400, 404})
_MAX_DOUBLINGS: Final = 16


class Failure(StrEnum):
    """Why an endpoint is suspected; a metric label."""

    UNAVAILABLE = "unavailable"  # it answered 502 or 503, or Envoy did in its place
    BYPASSED = "bypassed"  # the gateway went on to another endpoint
    UNREACHABLE = "unreachable"  # its metrics could not be fetched from the port it serves on
    TIMED_OUT = "timed_out"  # its last answers were all 504
    PROBE = "probe"  # it was doubted, and the probe failed


class Served(StrEnum):
    """Which endpoint the gateway says has served (Protocol 004, `-served`); a metric label."""

    CHOSEN = "chosen"  # the first of the destination
    FALLBACK = "fallback"  # a later one of the destination
    OTHER = "other"  # one of the pool that was not in the destination
    UNKNOWN = "unknown"  # none that we know
    UNREPORTED = "unreported"


class Transition(StrEnum):
    SET_ASIDE = "set_aside"
    READMITTED = "readmitted"


@dataclass(frozen=True, slots=True)
class HealthChange:
    """`seconds`: how long an endpoint is set aside. `failure` is None where it is readmitted."""

    address: str
    transition: Transition
    failure: Failure | None = None
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class HealthOptions:
    """`failures`: so many in a row set an endpoint aside, for `base_seconds`, doubled each further time up to
    `max_seconds`; and so do so many `timeouts` in a row. A doubted endpoint is asked once in `base_seconds`.

    Two timeouts: one alone may be a long request's, and a third would cost a client the whole wait once more
    where there is little load. Under load all that a hung worker holds times out at one moment anyway.
    """

    failures: int = 1
    base_seconds: float = 1.0
    max_seconds: float = 10.0
    timeouts: int = 2


@dataclass(frozen=True, slots=True)
class Feedback:
    """What a response says of the endpoints of its destination. `serving` has proved that it works; of
    `timed_out` and `doubted` the response may be the doing, or one request's own.
    """

    served: Served
    failed: tuple[tuple[Endpoint, Failure], ...] = ()
    serving: Endpoint | None = None
    timed_out: Endpoint | None = None
    doubted: Endpoint | None = None


def read_feedback(
    destination: Destination, status: int, served: object, pool: Sequence[Endpoint], *, pinned: bool
) -> Feedback:
    """Judge a response by its status and by `x-gateway-destination-endpoint-served` (any JSON value, or
    None).

    The gateway walks the destination in order, so whoever stands before the one that served has failed. A
    pinned request carries its worker's id wherever it goes: that it fails elsewhere is no fault of whoever
    forwarded it. A gateway that names an address we do not know (a service's, say) tells us nothing.
    """
    chosen = destination.endpoints
    bad = status in _NOT_SERVED
    # Nearly always it is the first, spelled as we spell it; to parse it costs more than all the rest.
    address = chosen[0].address if served == chosen[0].address else _address(served)
    if address is None:
        outcome, position = Served.UNREPORTED if served is None else Served.UNKNOWN, 0
    else:
        position = next((i for i, each in enumerate(chosen) if each.address == address), len(chosen))
        if position < len(chosen):
            outcome = Served.FALLBACK if position else Served.CHOSEN
        elif any(each.address == address for each in pool):
            outcome = Served.OTHER
        else:
            outcome, position = Served.UNKNOWN, 0
    failed = [(each, Failure.BYPASSED) for each in chosen[:position]]
    answering = chosen[position] if position < len(chosen) else None
    blamed = None if pinned and position else answering
    if bad and blamed is not None:
        failed.append((blamed, Failure.UNAVAILABLE))
    doubtful = status in _PIN_UNKNOWN and pinned and chosen[0].dynamo_instance_id is not None
    works = not bad and not doubtful and 0 < status < 500  # noqa: PLR2004  # HTTP's own border
    return Feedback(
        outcome,
        tuple(failed),
        serving=answering if works else None,
        timed_out=blamed if status == _TIMED_OUT else None,
        doubted=blamed if doubtful else None,
    )


def _address(served: object) -> str | None:
    if not isinstance(served, str):
        return None
    try:
        return canonical_address(served)
    except AddressError:
        return None


@dataclass(frozen=True, slots=True)
class _Record:
    endpoint: Endpoint
    failures: int = 0
    timeouts: int = 0
    times: int = 0  # so often it was set aside, or was left so after a probe, since it last served
    aside_until: float | None = None  # None: not set aside
    probing: bool = False
    down: bool = False


class PassiveHealth:
    """Owns what is known against endpoints; whoever has nothing against it takes no memory.

    `observe` hears of every endpoint that is set aside or readmitted, once per change. Times are seconds from
    anywhere, never backwards.
    """

    def __init__(
        self, options: HealthOptions, observe: Callable[[HealthChange], None] = lambda _: None
    ) -> None:
        self._options = options
        self._observe = observe
        self._records: dict[Identity, _Record] = {}
        self._doubts = Doubts(options.base_seconds)

    @property
    def set_aside(self) -> int:
        return sum(record.aside_until is not None for record in tuple(self._records.values()))

    @property
    def down(self) -> int:
        return sum(record.down for record in tuple(self._records.values()))

    def is_set_aside(self, endpoint: Endpoint) -> bool:
        """Only reads: another thread may ask."""
        record = self._records.get(endpoint.identity)
        return record is not None and record.aside_until is not None

    def usable(self, candidates: tuple[Endpoint, ...]) -> tuple[Endpoint, ...]:
        """The candidates that nothing is known against; else those that are only suspected; may be empty."""
        if not self._records:
            return candidates
        records = self._records
        found = [(endpoint, records.get(endpoint.identity)) for endpoint in candidates]
        healthy = tuple(each for each, record in found if record is None or record.aside_until is None)
        return healthy or tuple(each for each, record in found if record is None or not record.down)

    def heed(self, feedback: Feedback, now: float) -> None:
        for endpoint, failure in feedback.failed:
            self.failed(endpoint, failure, now)
        if feedback.serving is not None:
            self.succeeded(feedback.serving)
        if feedback.timed_out is not None:
            self.timed_out(feedback.timed_out, now)
        if feedback.doubted is not None:
            self.doubted(feedback.doubted, now)

    def failed(self, endpoint: Endpoint, failure: Failure, now: float) -> None:
        """Count a failure, unless the endpoint is set aside: then the request was on its way already."""
        record = self._records.get(endpoint.identity) or _Record(endpoint)
        if record.aside_until is not None:
            return
        record = replace(record, failures=record.failures + 1)
        if record.failures >= self._options.failures:
            self._set_aside(record, failure, now)
        else:
            self._records[endpoint.identity] = record

    def timed_out(self, endpoint: Endpoint, now: float) -> None:
        """Count a timeout likewise. One that does not yet set it aside is a doubt."""
        record = self._records.get(endpoint.identity) or _Record(endpoint)
        if record.aside_until is not None:
            return
        record = replace(record, timeouts=record.timeouts + 1)
        if record.timeouts >= self._options.timeouts:
            self._set_aside(record, Failure.TIMED_OUT, now)
        else:
            self._records[endpoint.identity] = record
            self._doubts.doubt(endpoint, now)

    def doubted(self, endpoint: Endpoint, now: float) -> None:
        """It will be due. One that is set aside is asked anyway, when its time is over."""
        if not self.is_set_aside(endpoint):
            self._doubts.doubt(endpoint, now)

    def succeeded(self, endpoint: Endpoint) -> None:
        """A request was served. Of an endpoint that is set aside it says nothing: it may be an old one."""
        record = self._records.get(endpoint.identity)
        if record is not None and record.aside_until is None:
            del self._records[endpoint.identity]

    def due(self, now: float, *, limit: int) -> tuple[Endpoint, ...]:
        """Endpoints to be probed, since their time is over or they are doubted; `probed` must follow for each
        of them. None is probed twice at a time.
        """
        asking = self._doubts.asking
        chosen = [
            record
            for identity, record in self._records.items()
            if record.aside_until is not None
            and record.aside_until <= now
            and not record.probing
            and identity not in asking
        ][:limit]
        for record in chosen:
            self._records[record.endpoint.identity] = replace(record, probing=True)
        returning = tuple(record.endpoint for record in chosen)
        return returning + self._doubts.due(now, limit=limit - len(returning))

    def probed(self, endpoint: Endpoint, *, alive: bool, now: float) -> None:
        """The outcome of a probe. Readmitted, an endpoint still has its failures until it serves."""
        record = self._records.get(endpoint.identity) or _Record(endpoint)
        if self._doubts.answered(endpoint):
            # One that failed meanwhile is asked again: this question was put before.
            if not alive and record.aside_until is None:
                self._set_aside(replace(record, down=True), Failure.PROBE, now)
            return
        if not record.probing:
            return  # forgotten meanwhile
        record = replace(record, probing=False)
        if alive:
            self._records[endpoint.identity] = replace(record, aside_until=None, down=False)
            self._observe(HealthChange(endpoint.address, Transition.READMITTED))
        else:
            self._set_aside(replace(record, down=True), Failure.PROBE, now)

    def keep_only(self, endpoints: Sequence[Endpoint]) -> None:
        """Forget whoever is none of these any more."""
        if self._records:
            known = {endpoint.identity for endpoint in endpoints}
            self._records = {key: record for key, record in self._records.items() if key in known}
        self._doubts.keep_only(endpoints)

    def _set_aside(self, record: _Record, failure: Failure, now: float) -> None:
        """For twice as long as the last time. Who is set aside already stays so, and nobody hears of it."""
        options = self._options
        seconds = min(options.base_seconds * 2 ** min(record.times, _MAX_DOUBLINGS), options.max_seconds)
        already = record.aside_until is not None
        identity = record.endpoint.identity
        self._records[identity] = replace(record, times=record.times + 1, aside_until=now + seconds)
        self._doubts.drop(record.endpoint)
        if not already:
            self._observe(HealthChange(record.endpoint.address, Transition.SET_ASIDE, failure, seconds))
