"""When the pieces of a streamed reply came. No IO and no clock: whoever reads tells the time."""

import json
from dataclasses import dataclass, field

from loadtests.stack.client import Usage
from loadtests.stack.sse import EventParser

__all__ = ["StreamError", "StreamTimes"]


class StreamError(ValueError):
    """A stream that is no reply; the message says in a few words of ours what is wrong with it."""


@dataclass(slots=True)
class StreamTimes:
    """`feed` bytes with the seconds since the request was sent, then `end` once.

    `first` is when the first piece of text came, `gaps` how long each one after it took. Pieces that come in
    one read came at once.
    """

    first: float | None = None
    gaps: list[float] = field(default_factory=list)
    usage: Usage | None = None
    done: bool = False
    _events: EventParser = field(default_factory=EventParser)
    _last: float = 0.0

    def feed(self, chunk: bytes, seconds: float) -> None:
        """Raises StreamError for an error that the server sent, or for what is no JSON."""
        for event in self._events.feed(chunk):
            if event == "[DONE]":
                self.done = True
            else:
                self._take(event, seconds)

    def end(self) -> None:
        """The stream is over. Raises StreamError where its reply is not."""
        if not self.done:
            raise StreamError("the stream broke off")

    def _take(self, event: str, seconds: float) -> None:
        try:
            document = json.loads(event)
        except ValueError:
            raise StreamError("an event that is no JSON") from None
        if not isinstance(document, dict) or "error" in document:
            raise StreamError("an error in the stream")
        if isinstance(document.get("usage"), dict):
            self.usage = Usage.parse(document["usage"])
        if not any(_text(choice) for choice in document.get("choices") or ()):
            return
        if self.first is None:
            self.first = seconds
        else:
            self.gaps.append(seconds - self._last)
        self._last = seconds


def _text(choice: dict[str, object]) -> object:
    """Of a chat's or a completion's chunk: what it adds, in text or in calls of tools."""
    delta = choice.get("delta")
    if isinstance(delta, dict):
        return delta.get("content") or delta.get("reasoning_content") or delta.get("tool_calls")
    return choice.get("text")
