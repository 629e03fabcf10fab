"""Doubts: endpoints that may be at fault are asked, while requests go on to them.

Theory. Some answers are the endpoint's doing or one request's own, and the status does not say which. A
question (a probe) does, but clients can make such answers at will. So however many doubts there are, an
endpoint is asked at most once in a time. A doubt that comes too soon, or while a question is under way, is
asked about later: that question may have been put before what is doubted now.

Pure: the caller brings the clock. Holds one entry for each endpoint that was doubted lately.
"""

from collections.abc import Container, Sequence
from dataclasses import dataclass, replace

from epp_adapter.endpoints import Endpoint, Identity

__all__ = ["Doubts"]


@dataclass(frozen=True, slots=True)
class _Doubt:
    endpoint: Endpoint
    ask_at: float  # not earlier
    open: bool = True
    asking: bool = False


class Doubts:
    """Questions about endpoints, at most one in `pause_seconds` about each."""

    def __init__(self, pause_seconds: float) -> None:
        self._pause_seconds = pause_seconds
        self._doubts: dict[Identity, _Doubt] = {}

    @property
    def known(self) -> int:
        return len(self._doubts)

    @property
    def asking(self) -> Container[Identity]:
        """Whom a question is on its way to."""
        return {identity for identity, doubt in self._doubts.items() if doubt.asking}

    def doubt(self, endpoint: Endpoint, now: float) -> None:
        known = self._doubts.get(endpoint.identity)
        self._doubts[endpoint.identity] = replace(known, open=True) if known else _Doubt(endpoint, now)

    def drop(self, endpoint: Endpoint) -> None:
        """No need to ask any more."""
        known = self._doubts.get(endpoint.identity)
        if known is not None:
            self._doubts[endpoint.identity] = replace(known, open=False)

    def due(self, now: float, *, limit: int) -> tuple[Endpoint, ...]:
        """Whom to ask now; `answered` must follow for each of them. Forgets who may be asked anew anyway."""
        for identity, doubt in tuple(self._doubts.items()):
            if not (doubt.open or doubt.asking) and doubt.ask_at <= now:
                del self._doubts[identity]
        waiting = [doubt for doubt in self._doubts.values() if doubt.open and not doubt.asking]
        chosen = [doubt for doubt in waiting if doubt.ask_at <= now][: max(limit, 0)]
        for doubt in chosen:
            asked = replace(doubt, ask_at=now + self._pause_seconds, open=False, asking=True)
            self._doubts[doubt.endpoint.identity] = asked
        return tuple(doubt.endpoint for doubt in chosen)

    def answered(self, endpoint: Endpoint) -> bool:
        """Whether it was asked here, and not forgotten meanwhile."""
        known = self._doubts.get(endpoint.identity)
        if known is None or not known.asking:
            return False
        self._doubts[endpoint.identity] = replace(known, asking=False)
        return True

    def keep_only(self, endpoints: Sequence[Endpoint]) -> None:
        """Forget whoever is none of these any more."""
        if self._doubts:
            known = {endpoint.identity for endpoint in endpoints}
            self._doubts = {key: doubt for key, doubt in self._doubts.items() if key in known}
