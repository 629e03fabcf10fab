"""Endpoints: where requests can go, which of them a gateway allows, and how a choice is written."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final, Protocol

__all__ = [
    "AddressError",
    "Destination",
    "Endpoint",
    "EndpointSnapshot",
    "EndpointSource",
    "FixedEndpoints",
    "Identity",
    "SubsetHint",
    "candidates",
    "canonical_address",
    "parse_subset_hint",
]

_MAX_PORT: Final = 65_535
_MAX_PORT_DIGITS: Final = 5

Identity = tuple[str, int | None]
"""An address, and the Dynamo instance behind it."""


class AddressError(ValueError):
    """An address that is no ip:port. The message is a rule, and never repeats the input."""


def canonical_address(text: str) -> str:
    """ip:port in the one spelling that is compared and sent: IPv6 compressed, in brackets.

    Raises AddressError. Host names are refused: Envoy's ORIGINAL_DST and override_host take addresses.
    """
    host, _, port = text.strip().rpartition(":")
    if not _is_port(port):
        raise AddressError("is not ip:port with a port from 1 to 65535")
    bracketed = host.startswith("[") and host.endswith("]")
    try:
        ip = ip_address(host[1:-1] if bracketed else host)
    except ValueError:
        raise AddressError("is not ip:port; host names are not resolved, so give the ip") from None
    if bracketed != isinstance(ip, IPv6Address):
        raise AddressError("is not ip:port; an IPv6 address stands in brackets: [::1]:8000")
    return _join(ip, int(port))


def _is_port(text: str) -> bool:
    digits = text.isascii() and text.isdigit() and len(text) <= _MAX_PORT_DIGITS
    return digits and 0 < int(text) <= _MAX_PORT


def _join(ip: IPv4Address | IPv6Address, port: int) -> str:
    return f"[{ip}]:{port}" if isinstance(ip, IPv6Address) else f"{ip}:{port}"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A model server. `address` is canonical (`canonical_address`).

    `dynamo_instance_id` is the u64 id of the Dynamo worker behind it: a frontend in direct router mode takes
    only requests that are pinned to it. `labels` are those of its pod; they tell no two endpoints apart.
    """

    address: str
    dynamo_instance_id: int | None = None
    ready: bool = True
    labels: Mapping[str, str] = field(default_factory=dict, compare=False)

    @property
    def identity(self) -> Identity:
        """Who it is: a worker that comes back under a new instance id is another."""
        return self.address, self.dynamo_instance_id

    @property
    def ip(self) -> str:
        """The address without its port; IPv6 without brackets."""
        return self.address.rpartition(":")[0].strip("[]")


@dataclass(frozen=True)
class EndpointSnapshot:
    """All known endpoints at one moment. A change replaces the snapshot whole; nobody changes one."""

    endpoints: tuple[Endpoint, ...] = ()

    def ready(self) -> tuple[Endpoint, ...]:
        return self._ready

    def allowed(self, hint: "SubsetHint") -> tuple[Endpoint, ...]:
        """The ready endpoints that a hint names, in their order here."""
        entries = hint.entries
        unknown = entries - self._spellings
        if unknown:
            entries |= {_hint_entry(entry) for entry in unknown}
        return tuple([each for each, address, ip in self._names if address in entries or ip in entries])

    # Made once per snapshot, since every pick asks for them and a pool may have hundreds of endpoints.
    @cached_property
    def _ready(self) -> tuple[Endpoint, ...]:
        return tuple(endpoint for endpoint in self.endpoints if endpoint.ready)

    @cached_property
    def _names(self) -> tuple[tuple[Endpoint, str, str], ...]:
        return tuple((endpoint, endpoint.address, endpoint.ip) for endpoint in self._ready)

    @cached_property
    def _spellings(self) -> frozenset[str]:
        return frozenset(name for _, address, ip in self._names for name in (address, ip))


class EndpointSource(Protocol):
    """Who knows the endpoints. `current` is cheap and never fails: a source keeps its last good snapshot."""

    def current(self) -> EndpointSnapshot: ...


class FixedEndpoints:
    """Endpoints that change only by `replace`: the fake of the seam above."""

    def __init__(self, *endpoints: Endpoint) -> None:
        self._snapshot = EndpointSnapshot(endpoints)

    def current(self) -> EndpointSnapshot:
        return self._snapshot

    def replace(self, *endpoints: Endpoint) -> None:
        self._snapshot = EndpointSnapshot(endpoints)


@dataclass(frozen=True, slots=True)
class Destination:
    """Ordered endpoints, the choice first; never empty. Protocol 004 wants header and metadata to agree, so
    both are `rendered`.
    """

    endpoints: tuple[Endpoint, ...]

    def __post_init__(self) -> None:
        if not self.endpoints:
            raise ValueError("a destination has at least one endpoint")

    @property
    def first(self) -> Endpoint:
        return self.endpoints[0]

    def rendered(self) -> str:
        """Protocol 004: ip:port, or a comma list of them in the order they are to be tried."""
        return ",".join(endpoint.address for endpoint in self.endpoints)


@dataclass(frozen=True, slots=True)
class SubsetHint:
    """The endpoints a gateway allows for one request: ip:port, or ip for all its ports; spelled as it likes.

    Whatever is no address names nobody.
    """

    entries: frozenset[str]

    def allows(self, endpoint: Endpoint) -> bool:
        """Of one endpoint; of a pool `candidates` tells it faster."""
        return not {endpoint.address, endpoint.ip}.isdisjoint(map(_hint_entry, self.entries))


def parse_subset_hint(value: object) -> SubsetHint | None:
    """Read `envoy.lb.subset_hint` / `x-gateway-destination-endpoint-subset`: a list, or a comma string.

    None (not set) puts no limit. Whatever else is no list of addresses allows what could be read of it, in
    the end nothing, and Protocol 004 then wants 503: a gateway's limit is never widened.
    """
    if value is None:
        return None
    values = value if isinstance(value, list) else [value]
    entries = ",".join([text for text in values if isinstance(text, str)]).split(",")
    return SubsetHint(frozenset(entries))


def _hint_entry(entry: str) -> str:
    """IPv4 has one spelling; IPv6 has many. What is no address stays as it is, and so matches nothing."""
    entry = entry.strip()
    if entry.count(":") <= 1:
        return entry
    try:
        return str(ip_address(entry.strip("[]")))
    except ValueError:
        pass
    try:
        return canonical_address(entry)
    except AddressError:
        return entry


def candidates(snapshot: EndpointSnapshot, hint: SubsetHint | None) -> tuple[Endpoint, ...]:
    """Ready endpoints that the hint allows, in the snapshot's order."""
    return snapshot.ready() if hint is None else snapshot.allowed(hint)
