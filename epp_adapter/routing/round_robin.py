"""Round robin: the strategy that always works, needs nothing of the request and books nothing."""

from collections.abc import Sequence

from epp_adapter.endpoints import Destination, Endpoint
from epp_adapter.routing.strategy import PlainPick, RoutingRequest, StrategyError, StrategyFault

__all__ = ["RoundRobin"]


class RoundRobin:
    """Candidates in turn. The cursor is this process's own; it counts picks, so that candidates which change
    from request to request (subset hints) still get their turns.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._picks = 0

    async def pick(self, request: RoutingRequest, candidates: Sequence[Endpoint]) -> PlainPick:
        del request
        if not candidates:
            raise StrategyError(StrategyFault.NO_CANDIDATES, "there is no candidate")
        chosen = candidates[self._picks % len(candidates)]
        self._picks += 1
        return PlainPick(self.name, Destination((chosen,)))
