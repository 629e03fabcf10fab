"""One ext_proc stream as a state machine: Envoy's messages in, events and replies out.

A Session owns order, body modes, chunking, the size cap, and which reply carries the metadata. It never
awaits, reads a clock or logs, and it knows nothing of tokens or endpoints. The order is a table:
transitions.py.

    step = session.receive(message)         # replies to send now; at most one event
    if isinstance(step.event, RequestReady):
        replies = session.release(verdict)  # or session.reject(error)
    elif step.event is not None:
        replies = session.acknowledge(edit)
"""

from dataclasses import dataclass
from enum import Enum
from typing import Any, Final

from extproc import replies as reply
from extproc.errors import ChainError, MisuseError, PeerProtocolError
from extproc.events import (
    BodyMode,
    Event,
    Headers,
    RequestReady,
    ResponseChunk,
    ResponseEvent,
    ResponseStarted,
    ResponseTrailers,
)
from extproc.replies import EnvoyMetadata, Reply
from extproc.transitions import (
    REQUEST,
    RESPONSE,
    RESPONSE_DUPLEX,
    Action,
    Input,
    Plan,
    RequestState,
    ResponseState,
)
from extproc.verdict import NO_EDIT, PASS, ResponseEdit, Verdict

__all__ = ["Replies", "Session", "SessionOptions", "Step", "StreamedDecision"]

Replies = tuple[Reply, ...]


class StreamedDecision(Enum):
    """Where a STREAMED request is decided, since its headers leave before its body is known."""

    AT_HEADERS = "headers"  # for a service that must change the headers
    AT_END = "end"  # for a service that must see the body


@dataclass(frozen=True, slots=True)
class SessionOptions:
    """`max_body_bytes`: a longer body is not collected; its request is decided without it (`oversize`).
    `assumed_mode`: for peers that send no protocol_config; Protocol 004 gateways run FULL_DUPLEX_STREAMED.
    """

    max_body_bytes: int = 16 * 1024 * 1024
    streamed_decision: StreamedDecision = StreamedDecision.AT_END
    assumed_mode: BodyMode = BodyMode.FULL_DUPLEX_STREAMED


@dataclass(frozen=True, slots=True)
class Step:
    """What came of one message: replies to send now, then at most one event to act on."""

    replies: Replies = ()
    event: Event | None = None


_NOTHING: Final = Step()
# ProcessingMode.BodySendMode; BUFFERED_PARTIAL (3) and GRPC (5) are not served.
_MODES: Final = {
    0: BodyMode.NONE,
    1: BodyMode.STREAMED,
    2: BodyMode.BUFFERED,
    4: BodyMode.FULL_DUPLEX_STREAMED,
}
_UNDECIDED: Final = frozenset(
    {RequestState.IDLE, RequestState.COLLECTING, RequestState.DECIDING, RequestState.DECIDING_OPEN}
)
_AT_HEADERS: Final = frozenset({Input.HEADERS, Input.HEADERS_END})


class Session:
    """The protocol state of one exchange. One owner, one message at a time; not thread-safe."""

    def __init__(self, options: SessionOptions) -> None:
        self._options = options
        self._metadata: EnvoyMetadata | None = None
        self._response_mode = BodyMode.NONE
        self._plan = Plan.NONE
        self._request = RequestState.IDLE
        self._response = ResponseState.IDLE
        self._headers = Headers({})
        self._chunks: list[bytes] = []
        self._collected = 0
        self._oversize = False
        self._last = Input.HEADERS  # of the request; when it is decided: the input that brought that about
        self._unacknowledged: ResponseEvent | None = None

    @property
    def request_state(self) -> RequestState:
        return self._request

    @property
    def response_state(self) -> ResponseState:
        return self._response

    def receive(self, message: Any) -> Step:
        """Take one ProcessingRequest.

        Raises PeerProtocolError for an order or a mode that cannot be served, MisuseError while a piece of
        the response waits for `acknowledge`.
        """
        if self._unacknowledged is not None:
            raise MisuseError("receive() before acknowledge()")
        if self._metadata is None:
            self._metadata = EnvoyMetadata(message.metadata_context)
            self._agree_on_modes(message)
        else:
            self._metadata.follow(message.metadata_context)
        name = message.WhichOneof("request")
        if name is None:
            raise PeerProtocolError("a ProcessingRequest that carries no headers, body or trailers")
        half, _, part = name.partition("_")
        content = getattr(message, name)
        if half == "request":
            return self._take_request(part, content)
        return self._take_response(part, content, self._metadata)

    def release(self, verdict: Verdict) -> Replies:
        """Let the request go on as `verdict` says. Once per RequestReady; no replies if nobody waits now.

        Raises MisuseError if no verdict is due, or for a body or headers that can no longer be changed.
        """
        state = self._request
        if state is RequestState.ABANDONED:
            return ()
        if state not in (RequestState.DECIDING, RequestState.DECIDING_OPEN):
            raise MisuseError(f"release() in state {state.name}")
        if verdict.body is not None and not self._body_replaceable:
            raise MisuseError("a new body where none can be sent")
        if (verdict.set_headers or verdict.remove_headers) and not self._headers_mutable:
            raise MisuseError("header changes after the headers have left")
        complete = state is RequestState.DECIDING
        self._request = RequestState.DONE if complete else RequestState.RELAYING
        chunks, self._chunks = self._chunks, []
        if self._last in _AT_HEADERS:
            return (reply.request_headers(verdict),)
        if self._plan is Plan.DUPLEX:
            return self._release_duplex(verdict, chunks, complete=complete)
        if self._last is Input.TRAILERS:
            return (reply.request_trailers(verdict),)
        return (reply.request_body(verdict),)

    def reject(self, error: ChainError) -> Replies:
        """Answer the client with `error`. Whatever still arrives on the stream is ignored.

        Raises MisuseError once a response has begun: there is nothing left to answer.
        """
        if self._request in (RequestState.ABANDONED, RequestState.CLOSED):
            return ()
        if self._response is not ResponseState.IDLE:
            raise MisuseError("reject() after the response began")
        self._request = RequestState.CLOSED
        self._response = ResponseState.CLOSED
        self._chunks.clear()
        return (reply.immediate(error),)

    def acknowledge(self, edit: ResponseEdit) -> Replies:
        """Let the piece of the response that `receive` reported last go on. Once per response event."""
        event, self._unacknowledged = self._unacknowledged, None
        if event is None:
            raise MisuseError("acknowledge() without a response event")
        return self._pass_on(event, edit)

    def _agree_on_modes(self, first_message: Any) -> None:
        request_mode = self._options.assumed_mode
        if first_message.HasField("protocol_config"):
            config = first_message.protocol_config
            request_mode = _mode(config.request_body_mode, "request_body_mode")
            self._response_mode = _mode(config.response_body_mode, "response_body_mode")
        self._plan = {
            BodyMode.NONE: Plan.NONE,
            BodyMode.BUFFERED: Plan.BUFFERED,
            BodyMode.FULL_DUPLEX_STREAMED: Plan.DUPLEX,
            BodyMode.STREAMED: _STREAMED_PLANS[self._options.streamed_decision],
        }[request_mode]

    def _take_request(self, part: str, content: Any) -> Step:
        kind = self._classify(part, content)
        row = REQUEST[self._plan].get((self._request, kind))
        if row is None:
            raise PeerProtocolError(f"request {kind.name} in state {self._request.name} of {self._plan.name}")
        action, state = row
        if action is Action.IGNORE:
            return _NOTHING
        if self._request in _UNDECIDED:
            self._last = kind
        self._request = state
        if part == "headers":
            self._headers = reply.plain_headers(content.headers)
        if action in _GATHERING:
            self._gather(content.body)
        if action in _DECISIVE:
            return Step(event=self._request_ready())
        if action in _ACKNOWLEDGING:
            return Step((_untouched(part),))
        if action is Action.RELAY:
            end_of_stream = kind is Input.BODY_END
            return Step(reply.duplex_chunks("request_body", (content.body,), end_of_stream=end_of_stream))
        return _NOTHING

    def _classify(self, part: str, content: Any) -> Input:
        if part == "trailers":
            return Input.TRAILERS
        if part == "headers":
            return Input.HEADERS_END if content.end_of_stream else Input.HEADERS
        if content.end_of_stream:
            return Input.BODY_END
        if self._request is RequestState.COLLECTING and self._exceeds(len(content.body)):
            return Input.BODY_OVER
        return Input.BODY

    def _exceeds(self, more: int) -> bool:
        return self._collected + more > self._options.max_body_bytes

    def _gather(self, chunk: bytes) -> None:
        self._oversize = self._oversize or self._exceeds(len(chunk))
        self._collected += len(chunk)
        if self._oversize and self._plan is not Plan.DUPLEX:
            self._chunks.clear()  # Envoy has the body; an oversize one is of no use here
        else:
            self._chunks.append(chunk)

    def _request_ready(self) -> RequestReady:
        assert self._metadata is not None
        body: bytes | None = None
        if self._last is not Input.HEADERS and not self._oversize:
            body = self._chunks[0] if len(self._chunks) == 1 else b"".join(self._chunks)
        return RequestReady(
            headers=self._headers,
            body=body,
            metadata=self._metadata,
            oversize=self._oversize,
            body_replaceable=self._body_replaceable,
            headers_mutable=self._headers_mutable,
            response_body=self._response_mode,
        )

    @property
    def _body_replaceable(self) -> bool:
        holds_body = self._plan in (Plan.BUFFERED, Plan.DUPLEX) and self._last not in _AT_HEADERS
        return holds_body and self._headers_mutable and not self._oversize

    @property
    def _headers_mutable(self) -> bool:
        if self._last in _AT_HEADERS or self._plan is Plan.DUPLEX:
            return True
        return self._plan is Plan.BUFFERED and self._last is not Input.TRAILERS

    def _release_duplex(self, verdict: Verdict, chunks: list[bytes], *, complete: bool) -> Replies:
        content_length = None
        if verdict.body is not None:
            chunks = [verdict.body]
            content_length = len(verdict.body) if "content-length" in self._headers else None
        with_trailers = self._last is Input.TRAILERS
        body = reply.duplex_chunks("request_body", chunks, end_of_stream=complete and not with_trailers)
        trailers = (_untouched("trailers"),) if with_trailers else ()
        return (reply.request_headers(verdict, content_length=content_length), *body, *trailers)

    def _take_response(self, part: str, content: Any, metadata: EnvoyMetadata) -> Step:
        kind = self._classify(part, content)
        duplex = self._response_mode is BodyMode.FULL_DUPLEX_STREAMED
        row = (RESPONSE_DUPLEX if duplex else RESPONSE).get((self._response, kind))
        if row is None:
            raise PeerProtocolError(f"response {kind.name} in state {self._response.name}")
        action, self._response = row
        if action is Action.IGNORE:
            return _NOTHING
        if self._request in _UNDECIDED:
            # An earlier filter, or Envoy itself, answered: nobody waits for our verdict any more.
            self._request = RequestState.ABANDONED
            self._chunks.clear()
        event = _response_event(part, content, metadata)
        if action is Action.ACK:
            return Step(self._pass_on(event, NO_EDIT))
        self._unacknowledged = event
        return Step(event=event)

    def _pass_on(self, event: ResponseEvent, edit: ResponseEdit) -> Replies:
        if isinstance(event, ResponseStarted):
            return (reply.response_headers(edit),)
        if isinstance(event, ResponseTrailers):
            return (reply.response_trailers(),)
        if self._response_mode is BodyMode.FULL_DUPLEX_STREAMED:
            body = event.body if edit.body is None else edit.body
            return reply.duplex_chunks("response_body", (body,), end_of_stream=event.end_of_stream)
        return (reply.response_body(edit, whole=self._response_mode is BodyMode.BUFFERED),)


_STREAMED_PLANS: Final = {
    StreamedDecision.AT_HEADERS: Plan.STREAMED_AT_HEADERS,
    StreamedDecision.AT_END: Plan.STREAMED_AT_END,
}
_GATHERING: Final = frozenset({Action.GATHER, Action.GATHER_ACK, Action.GATHER_DECIDE})
_DECISIVE: Final = frozenset({Action.DECIDE, Action.GATHER_DECIDE})
_ACKNOWLEDGING: Final = frozenset({Action.ACK, Action.GATHER_ACK})


def _mode(value: int, setting: str) -> BodyMode:
    mode = _MODES.get(value)
    if mode is None:
        raise PeerProtocolError(
            f"processing_mode.{setting} is {value}, which this service does not serve: "
            "set NONE, STREAMED, BUFFERED or FULL_DUPLEX_STREAMED in the ext_proc filter"
        )
    return mode


def _untouched(part: str) -> Reply:
    if part == "headers":
        return reply.request_headers(PASS)
    return reply.request_body(PASS) if part == "body" else reply.request_trailers(PASS)


def _response_event(part: str, content: Any, metadata: EnvoyMetadata) -> ResponseEvent:
    if part == "trailers":
        return ResponseTrailers()
    if part == "body":
        return ResponseChunk(content.body, content.end_of_stream)
    headers = reply.plain_headers(content.headers)
    status = headers.get(":status", "")
    return ResponseStarted(
        status=int(status) if status.isascii() and status.isdecimal() else 0,
        headers=headers,
        metadata=metadata,
        end_of_stream=content.end_of_stream,
    )
