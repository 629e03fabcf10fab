"""What the status page of the picker shows: endpoints, strategies, requests, and the last picks."""

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from epp_adapter.endpoints import Endpoint
from epp_adapter.exchange_record import ExchangeRecord
from epp_adapter.routing.load import EndpointLoad
from extproc.admin import Section

__all__ = ["RecentPicks", "sections"]

_LAST: Final = 20


@dataclass(slots=True)
class RecentPicks:
    """Keeps the last exchanges that were routed: an observer. Another thread may read it."""

    _records: deque[ExchangeRecord] = field(default_factory=lambda: deque(maxlen=_LAST))

    def exchange_closed(self, record: ExchangeRecord) -> None:
        if record.destination:
            self._records.append(record)

    def last(self) -> Sequence[ExchangeRecord]:
        """The latest first."""
        return tuple(reversed(self._records.copy()))


def sections(
    endpoints: Sequence[Endpoint],
    is_set_aside: Callable[[Endpoint], bool],
    loads: Sequence[EndpointLoad | None],
    outcomes: Mapping[tuple[str, str], float],
    picks: Sequence[ExchangeRecord],
) -> Sequence[Section]:
    """`loads` are in the order of `endpoints`; `outcomes` are requests since the start, by both labels."""
    return (
        Section(
            "Endpoints",
            ("endpoint", "Dynamo instance", "state", "waiting", "running", "KV cache used"),
            [
                _endpoint(each, _state(each, is_set_aside), load)
                for each, load in zip(endpoints, loads, strict=True)
            ],
        ),
        Section(
            "Requests since the start",
            ("outcome", "strategy", "requests"),
            [(*key, f"{count:,.0f}") for key, count in sorted(outcomes.items(), key=lambda each: -each[1])],
        ),
        Section(
            "Last picks",
            ("destination", "strategy", "model", "prompt tokens", "cached", "pick", "status", "in all"),
            [_pick(each) for each in picks],
        ),
    )


def _state(endpoint: Endpoint, is_set_aside: Callable[[Endpoint], bool]) -> str:
    if not endpoint.ready:
        return "not ready"
    return "set aside" if is_set_aside(endpoint) else "ready"


def _endpoint(endpoint: Endpoint, state: str, load: EndpointLoad | None) -> Sequence[object]:
    instance = endpoint.dynamo_instance_id or "-"
    if load is None:
        return (endpoint.address, instance, state, "-", "-", "-")
    return (endpoint.address, instance, state, load.waiting, load.running, f"{load.kv_utilization:.0%}")


def _pick(record: ExchangeRecord) -> Sequence[object]:
    return (
        record.destination,
        record.strategy,
        record.model or "-",
        record.token_count,
        "-" if record.cached_tokens is None else record.cached_tokens,
        "-" if record.pick_seconds is None else f"{record.pick_seconds * 1e3:.2f} ms",
        record.response_status or "-",
        f"{record.total_seconds:.2f} s",
    )
