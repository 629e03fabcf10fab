"""What a request is refused with: vLLM's error objects, with its statuses and types.

vLLM 0.32, entrypoints/serve/engine/protocol.py and exception_handling. Messages are ours: vLLM's repeat what
the client sent, and promise nothing.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import orjson

from tokenext.declined import SkipReason

__all__ = [
    "RETRY_AFTER_SECONDS",
    "UNREADABLE",
    "ApiError",
    "Refusal",
    "bad_request",
    "malformed",
    "of_declined",
]

RETRY_AFTER_SECONDS: Final = 1
_BUSY: Final = 503


@dataclass(frozen=True, slots=True)
class Refusal:
    """`param` names the field at fault, None where no single one is. `retry`: it may pass soon.

    Without a `type` it is told as Starlette tells it.
    """

    status: int
    type: str
    message: str
    param: str | None = None
    retry: bool = False

    def body(self) -> bytes:
        if not self.type:
            return orjson.dumps({"detail": self.message})
        error = {"message": self.message, "type": self.type, "param": self.param, "code": self.status}
        return orjson.dumps({"error": error})


UNREADABLE: Final = Refusal(400, "", "There was an error parsing the body")


class ApiError(Exception):
    """The request is refused. The message holds nothing that the client sent."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.message)
        self.refusal = refusal


def malformed(message: str, param: str | None = "body") -> ApiError:
    """What vLLM's own data types refuse: a wrong shape."""
    return ApiError(Refusal(400, "Bad Request", message, param))


def bad_request(message: str, param: str | None = None) -> ApiError:
    """What vLLM's checks refuse: a wrong value."""
    return ApiError(Refusal(400, "BadRequestError", message, param))


def of_declined(reason: SkipReason) -> ApiError:
    return ApiError(_OF_REASON.get(reason, _FAILED))


def _malformed(message: str, param: str = "body") -> Refusal:
    return Refusal(400, "Bad Request", message, param)


def _wrong(message: str) -> Refusal:
    return Refusal(400, "BadRequestError", message)


def _busy(message: str) -> Refusal:
    return Refusal(_BUSY, "ServiceUnavailableError", message, retry=True)


_FAILED: Final = Refusal(500, "InternalServerError", "the prompt could not be tokenized")
_OF_REASON: Final[Mapping[SkipReason, Refusal]] = {
    SkipReason.NO_BODY: _malformed("the request has no body"),
    SkipReason.OVERSIZE: Refusal(
        413, "RequestEntityTooLarge", "the request is larger than is tokenized here"
    ),
    # The body was read before: what is left is a text that is none.
    SkipReason.INVALID_JSON: _wrong("a text has half of a surrogate pair"),
    SkipReason.BAD_REQUEST_SHAPE: _malformed("a message has another shape than it may", "body.messages"),
    SkipReason.UNKNOWN_MODEL: Refusal(404, "NotFoundError", "the model does not exist", "model"),
    SkipReason.MULTIMODAL: _wrong("this is not a multimodal model: text parts only"),
    SkipReason.PROMPT_LIST: _malformed("a prompt is one text or one list of ids", "body.prompt"),
    SkipReason.EMPTY_PROMPT: _wrong("No token_ids rendered"),
    SkipReason.NO_CHAT_TEMPLATE: _wrong("the model has no chat template"),
    SkipReason.RENDER_FAILED: _wrong("the chat template refuses these messages"),
    SkipReason.RENDER_LIMIT: _wrong("the rendered prompt is longer than is allowed here"),
    SkipReason.RENDER_DEADLINE: _busy("rendering took too long"),
    SkipReason.QUEUE_FULL: _busy("too many prompts wait already"),
    SkipReason.DEADLINE: _busy("tokenizing took too long"),
    SkipReason.BREAKER_OPEN: _busy("tokenizing this model has failed again and again"),
}
