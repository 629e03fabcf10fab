"""From a pick to a destination: whom the gateway is to ask, and whom next."""

from collections.abc import Sequence

from epp_adapter.endpoints import Destination, Endpoint
from epp_adapter.routing.strategy import Pick

__all__ = ["destination_of", "is_pinned"]


def is_pinned(pick: Pick) -> bool:
    """Whether headers go with the request that only the first endpoint can use."""
    return pick.destination.first.dynamo_instance_id is not None or bool(pick.request_headers)


def destination_of(pick: Pick, among: Sequence[Endpoint], *, more: int) -> Destination:
    """The pick, and after it up to `more` others of `among` that a gateway may try.

    A pin holds for one endpoint, so a pinned destination is one. The others are taken in turn from the choice
    on, so that the load of an endpoint that fails is spread.
    """
    chosen = pick.destination.endpoints
    if is_pinned(pick):
        return Destination(chosen[:1])
    missing = 1 + more - len(chosen)
    if missing <= 0:
        return pick.destination
    after = among.index(chosen[-1]) + 1 if chosen[-1] in among else 0
    others = [each for each in (*among[after:], *among[:after]) if each not in chosen and _plain(each)]
    return Destination((*chosen, *others[:missing]))


def _plain(endpoint: Endpoint) -> bool:
    return endpoint.dynamo_instance_id is None
