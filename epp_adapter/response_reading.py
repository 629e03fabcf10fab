"""What is done to a response as it passes: usage is read, and a rewritten model gets its name back."""

from typing import Final

from epp_adapter.response_body import ModelNameRestorer, Usage, UsageReader
from epp_adapter.response_timing import is_event_stream
from extproc.events import ResponseChunk, ResponseStarted
from extproc.verdict import NO_EDIT, ResponseEdit

__all__ = ["ResponseReading"]

_LENGTH_CHANGES: Final = ResponseEdit(remove_headers=("content-length",))


class ResponseReading:
    """Of one exchange. Without `served` and `asked` (see Rewritten) no byte is changed."""

    def __init__(self, *, served: str | None = None, asked: str | None = None) -> None:
        self._restorer = None if served is None or asked is None else ModelNameRestorer(served, asked)
        self._usage: UsageReader | None = None

    @property
    def usage(self) -> Usage | None:
        """None where the model server told none, or the body was not seen."""
        return self._usage.usage if self._usage else None

    def start(self, started: ResponseStarted) -> ResponseEdit:
        headers = started.headers
        if headers.get("content-encoding", "identity").lower() != "identity":
            self._restorer = None  # compressed: neither can be read
            return NO_EDIT
        self._usage = UsageReader(events=is_event_stream(headers))
        return NO_EDIT if self._restorer is None else _LENGTH_CHANGES

    def read(self, chunk: ResponseChunk) -> ResponseEdit:
        if self._usage is not None:
            self._usage.feed(chunk.body, end=chunk.end_of_stream)
        if self._restorer is None:
            return NO_EDIT
        body = self._restorer.feed(chunk.body, end=chunk.end_of_stream)
        return NO_EDIT if body == chunk.body else ResponseEdit(body=body)
