"""The seam between a stream (session and server) and a service's decisions."""

from typing import Protocol

from extproc.errors import ChainError
from extproc.events import RequestReady, ResponseEvent, Termination
from extproc.verdict import NO_EDIT, PASS, ResponseEdit, Verdict

__all__ = ["Exchange", "PassingExchange", "RefusingExchange"]


class Exchange(Protocol):
    """One HTTP request and its response. The server calls these in order and `close` exactly once, last.

    `decide` is not called where a stream starts with a response (a local reply of an earlier filter).
    """

    async def decide(self, request: RequestReady) -> Verdict:
        """Decide a request. Raises ChainError to answer in the model server's stead, and PeerProtocolError
        where the filter runs in a mode in which this service cannot do what it is configured to do.
        """
        ...

    def edit(self, event: ResponseEvent) -> ResponseEdit:
        """What to change in a piece of the response; runs before it is acknowledged, so it must be quick."""
        ...

    async def observe(self, event: ResponseEvent) -> None:
        """Book a piece of the response; called after it was acknowledged."""
        ...

    async def close(self, termination: Termination) -> None:
        """Give back whatever the exchange holds. Never raises."""
        ...


class PassingExchange:
    """Lets everything pass: the empty ext_proc that costs are measured against, and the fake of the seam."""

    async def decide(self, request: RequestReady) -> Verdict:
        del request
        return PASS

    def edit(self, event: ResponseEvent) -> ResponseEdit:
        del event
        return NO_EDIT

    async def observe(self, event: ResponseEvent) -> None:
        pass

    async def close(self, termination: Termination) -> None:
        pass


class RefusingExchange(PassingExchange):
    """Answers every request with one error."""

    def __init__(self, error: ChainError) -> None:
        self._error = error

    async def decide(self, request: RequestReady) -> Verdict:
        del request
        raise self._error
