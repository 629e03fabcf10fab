"""Every way an exchange can fail, with the HTTP status and the reason that go with it."""

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import ClassVar, Final

__all__ = [
    "BadRequestError",
    "BodyTooLargeError",
    "ChainError",
    "DeadlineExceededError",
    "InternalError",
    "MisuseError",
    "NoReadyEndpointError",
    "OverloadedError",
    "PeerProtocolError",
    "Reason",
    "TooManyHeadersError",
    "UnknownModelError",
    "UnknownStrategyError",
]

_NO_HEADERS: Final[Mapping[str, str]] = MappingProxyType({})


class Reason(StrEnum):
    """Why a request was refused; safe as a metric label and as an error code for clients."""

    BAD_REQUEST = "bad_request"
    UNKNOWN_STRATEGY = "unknown_strategy"
    UNKNOWN_MODEL = "model_not_found"
    BODY_TOO_LARGE = "request_too_large"
    TOO_MANY_HEADERS = "too_many_headers"
    OVERLOADED = "overloaded"
    NO_READY_ENDPOINT = "no_ready_endpoint"
    DEADLINE_EXCEEDED = "deadline_exceeded"
    INTERNAL = "internal_error"


class ChainError(Exception):
    """A refusal the client is told about.

    `message` reaches the client, so it never repeats what the client sent. `headers` are added to the answer.
    """

    status: ClassVar[int] = 500
    reason: ClassVar[Reason] = Reason.INTERNAL

    def __init__(self, message: str, *, headers: Mapping[str, str] = _NO_HEADERS) -> None:
        super().__init__(message)
        self.message = message
        self.headers = headers


class BadRequestError(ChainError):
    status = 400
    reason = Reason.BAD_REQUEST


class UnknownStrategyError(BadRequestError):
    reason = Reason.UNKNOWN_STRATEGY


class UnknownModelError(ChainError):
    status = 404
    reason = Reason.UNKNOWN_MODEL


class BodyTooLargeError(ChainError):
    status = 413
    reason = Reason.BODY_TOO_LARGE


class TooManyHeadersError(ChainError):
    """RFC 6585, 5: Request Header Fields Too Large."""

    status = 431
    reason = Reason.TOO_MANY_HEADERS


class OverloadedError(ChainError):
    status = 429
    reason = Reason.OVERLOADED


class NoReadyEndpointError(ChainError):
    status = 503
    reason = Reason.NO_READY_ENDPOINT


class DeadlineExceededError(ChainError):
    status = 504
    reason = Reason.DEADLINE_EXCEEDED


class InternalError(ChainError):
    pass


class PeerProtocolError(Exception):
    """Envoy sent something ext_proc does not allow here, or runs a mode that cannot be served.

    The stream ends with gRPC FAILED_PRECONDITION and this message, which names the setting to change.
    """


class MisuseError(RuntimeError):
    """Our own code called a Session out of turn: a bug, never the peer's doing."""
