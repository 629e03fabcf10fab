"""The order in which ext_proc messages may come, as tables. What is not in a table is a protocol error.

Theory. A stream has two halves that run independently: the request, and its response (which may start before
the request body is over). Each half has a state; a message is classified into an Input; the table of the half
says which Action to take and which state follows. Envoy's processing mode chooses the table of the request:

* NONE: one message, the headers. Decided there.
* BUFFERED: the headers are answered at once, since Envoy sends no body before; the whole body comes in one
  message, whatever its end_of_stream says (trailers may follow). Decided there, while Envoy still holds the
  headers.
* FULL_DUPLEX_STREAMED: nothing is answered before the end of stream. The headers reply is what lets the
  headers go on to the next filter, and the dynamic metadata has to be attached to it. Envoy does not keep the
  body: every byte must be sent back. A body over the limit is decided early and relayed from there.
* STREAMED, decided at the headers: the body is acknowledged chunk by chunk.
* STREAMED, decided at the end: the headers and all chunks but the last have left by then, so that only
  metadata can still be attached.

Envoy repeats an end of stream at times (envoy#46237), hence the rows that swallow one.
Sources: envoy/service/ext_proc/v3/external_processor.proto, and the project's measurements on Envoy 1.40.
"""

from collections.abc import Mapping
from enum import Enum, auto
from types import MappingProxyType
from typing import Final

__all__ = [
    "REQUEST",
    "RESPONSE",
    "RESPONSE_DUPLEX",
    "Action",
    "Input",
    "Plan",
    "RequestState",
    "ResponseState",
]


class Plan(Enum):
    """How the request half is served: Envoy's request body mode, and for STREAMED where we decide."""

    NONE = auto()
    BUFFERED = auto()
    DUPLEX = auto()
    STREAMED_AT_HEADERS = auto()
    STREAMED_AT_END = auto()


class Input(Enum):
    HEADERS = auto()
    HEADERS_END = auto()  # headers with end_of_stream: there is no body
    BODY = auto()
    BODY_OVER = auto()  # a chunk, not the last, that takes the body over the limit
    BODY_END = auto()
    TRAILERS = auto()


class RequestState(Enum):
    IDLE = auto()
    COLLECTING = auto()
    DECIDING = auto()  # all of the request is here; the verdict is not
    DECIDING_OPEN = auto()  # the verdict is asked for, and more of the body may come
    RELAYING = auto()  # the verdict is out; the rest of the body passes
    DONE = auto()
    ABANDONED = auto()  # somebody else answered first: nothing is expected of us
    CLOSED = auto()  # we answered the client ourselves


class ResponseState(Enum):
    IDLE = auto()
    OPEN = auto()
    DONE = auto()
    CLOSED = auto()


class Action(Enum):
    HOLD = auto()  # keep, say nothing
    ACK = auto()  # let it pass unchanged
    GATHER = auto()  # keep the chunk, say nothing
    GATHER_ACK = auto()  # keep a copy, let it pass
    GATHER_DECIDE = auto()
    DECIDE = auto()
    RELAY = auto()  # send the chunk back
    IGNORE = auto()
    REPORT = auto()  # response half: tell the exchange, then acknowledge


RequestTable = Mapping[tuple[RequestState, Input], tuple[Action, RequestState]]
ResponseTable = Mapping[tuple[ResponseState, Input], tuple[Action, ResponseState]]

_S = RequestState
_R = ResponseState
_I = Input
_A = Action

_AFTER_THE_END: Final[RequestTable] = {
    (state, late): (_A.IGNORE, state)
    for state in (_S.ABANDONED, _S.CLOSED)
    for late in (_I.BODY, _I.BODY_OVER, _I.BODY_END, _I.TRAILERS)
}

_LATE_MESSAGES_ARE_ACKNOWLEDGED: Final[RequestTable] = {
    (_S.DONE, late): (_A.ACK, _S.DONE) for late in (_I.BODY, _I.BODY_END, _I.TRAILERS)
}

REQUEST: Final[Mapping[Plan, RequestTable]] = MappingProxyType(
    {
        Plan.NONE: {
            (_S.IDLE, _I.HEADERS): (_A.DECIDE, _S.DECIDING),
            (_S.IDLE, _I.HEADERS_END): (_A.DECIDE, _S.DECIDING),
            (_S.DONE, _I.TRAILERS): (_A.ACK, _S.DONE),
            **_AFTER_THE_END,
        },
        Plan.BUFFERED: {
            (_S.IDLE, _I.HEADERS): (_A.ACK, _S.COLLECTING),
            (_S.IDLE, _I.HEADERS_END): (_A.DECIDE, _S.DECIDING),
            (_S.COLLECTING, _I.BODY): (_A.GATHER_DECIDE, _S.DECIDING),
            (_S.COLLECTING, _I.BODY_OVER): (_A.GATHER_DECIDE, _S.DECIDING),
            (_S.COLLECTING, _I.BODY_END): (_A.GATHER_DECIDE, _S.DECIDING),
            (_S.COLLECTING, _I.TRAILERS): (_A.DECIDE, _S.DECIDING),
            **_LATE_MESSAGES_ARE_ACKNOWLEDGED,
            **_AFTER_THE_END,
        },
        Plan.STREAMED_AT_HEADERS: {
            (_S.IDLE, _I.HEADERS): (_A.DECIDE, _S.DECIDING_OPEN),
            (_S.IDLE, _I.HEADERS_END): (_A.DECIDE, _S.DECIDING),
            (_S.RELAYING, _I.BODY): (_A.ACK, _S.RELAYING),
            (_S.RELAYING, _I.BODY_END): (_A.ACK, _S.DONE),
            (_S.RELAYING, _I.TRAILERS): (_A.ACK, _S.DONE),
            **_LATE_MESSAGES_ARE_ACKNOWLEDGED,
            **_AFTER_THE_END,
        },
        Plan.STREAMED_AT_END: {
            (_S.IDLE, _I.HEADERS): (_A.ACK, _S.COLLECTING),
            (_S.IDLE, _I.HEADERS_END): (_A.DECIDE, _S.DECIDING),
            (_S.COLLECTING, _I.BODY): (_A.GATHER_ACK, _S.COLLECTING),
            (_S.COLLECTING, _I.BODY_OVER): (_A.GATHER_ACK, _S.COLLECTING),
            (_S.COLLECTING, _I.BODY_END): (_A.GATHER_DECIDE, _S.DECIDING),
            (_S.COLLECTING, _I.TRAILERS): (_A.DECIDE, _S.DECIDING),
            **_LATE_MESSAGES_ARE_ACKNOWLEDGED,
            **_AFTER_THE_END,
        },
        Plan.DUPLEX: {
            (_S.IDLE, _I.HEADERS): (_A.HOLD, _S.COLLECTING),
            (_S.IDLE, _I.HEADERS_END): (_A.DECIDE, _S.DECIDING),
            (_S.COLLECTING, _I.BODY): (_A.GATHER, _S.COLLECTING),
            (_S.COLLECTING, _I.BODY_OVER): (_A.GATHER_DECIDE, _S.DECIDING_OPEN),
            (_S.COLLECTING, _I.BODY_END): (_A.GATHER_DECIDE, _S.DECIDING),
            (_S.COLLECTING, _I.TRAILERS): (_A.DECIDE, _S.DECIDING),
            (_S.DECIDING_OPEN, _I.BODY): (_A.GATHER, _S.DECIDING_OPEN),
            (_S.DECIDING_OPEN, _I.BODY_END): (_A.GATHER, _S.DECIDING),
            (_S.DECIDING_OPEN, _I.TRAILERS): (_A.HOLD, _S.DECIDING),
            (_S.DECIDING, _I.BODY): (_A.IGNORE, _S.DECIDING),
            (_S.DECIDING, _I.BODY_END): (_A.IGNORE, _S.DECIDING),
            (_S.DECIDING, _I.TRAILERS): (_A.IGNORE, _S.DECIDING),
            (_S.RELAYING, _I.BODY): (_A.RELAY, _S.RELAYING),
            (_S.RELAYING, _I.BODY_END): (_A.RELAY, _S.DONE),
            (_S.RELAYING, _I.TRAILERS): (_A.ACK, _S.DONE),
            (_S.DONE, _I.BODY): (_A.IGNORE, _S.DONE),
            (_S.DONE, _I.BODY_END): (_A.IGNORE, _S.DONE),
            (_S.DONE, _I.TRAILERS): (_A.IGNORE, _S.DONE),
            **_AFTER_THE_END,
        },
    }
)

# A filter may be sent any subset of headers, body and trailers; each piece is answered as it comes.
_PIECE_BY_PIECE: Final[ResponseTable] = {
    (_R.IDLE, _I.HEADERS): (_A.REPORT, _R.OPEN),
    (_R.IDLE, _I.HEADERS_END): (_A.REPORT, _R.DONE),
    (_R.IDLE, _I.BODY): (_A.REPORT, _R.OPEN),
    (_R.IDLE, _I.BODY_END): (_A.REPORT, _R.DONE),
    (_R.IDLE, _I.TRAILERS): (_A.REPORT, _R.DONE),
    (_R.OPEN, _I.BODY): (_A.REPORT, _R.OPEN),
    (_R.OPEN, _I.BODY_END): (_A.REPORT, _R.DONE),
    (_R.OPEN, _I.TRAILERS): (_A.REPORT, _R.DONE),
    **{
        (_R.CLOSED, late): (_A.IGNORE, _R.CLOSED)
        for late in (_I.HEADERS, _I.HEADERS_END, _I.BODY, _I.BODY_END, _I.TRAILERS)
    },
}

# After the end, Envoy waits for one reply per message in every mode but full duplex.
RESPONSE: Final[ResponseTable] = MappingProxyType(
    {
        **_PIECE_BY_PIECE,
        **{(_R.DONE, late): (_A.ACK, _R.DONE) for late in (_I.BODY, _I.BODY_END, _I.TRAILERS)},
    }
)
RESPONSE_DUPLEX: Final[ResponseTable] = MappingProxyType(
    {
        **_PIECE_BY_PIECE,
        **{(_R.DONE, late): (_A.IGNORE, _R.DONE) for late in (_I.BODY, _I.BODY_END, _I.TRAILERS)},
    }
)
