"""What a request is refused with: vLLM's error objects, with its statuses and types.

vLLM 0.32, entrypoints/serve/engine/protocol.py and exception_handling. Messages are ours: vLLM's repeat what
the client sent, and promise nothing.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import orjson

from tokenext.declined import Declined, SkipReason

__all__ = ["RETRY_AFTER_SECONDS", "ApiError", "bad_request", "malformed", "of_declined"]

RETRY_AFTER_SECONDS: Final = 1
_BUSY: Final = 503


@dataclass(frozen=True, slots=True)
class ApiError(Exception):
    """`param` names the field at fault, None where no single one is. `retry`: it may pass soon."""

    status: int
    type: str
    message: str
    param: str | None = None
    retry: bool = False

    def body(self) -> bytes:
        error = {"message": self.message, "type": self.type, "param": self.param, "code": self.status}
        return orjson.dumps({"error": error})


def malformed(message: str, param: str | None = "body") -> ApiError:
    """What vLLM's own data types refuse: a wrong shape."""
    return ApiError(400, "Bad Request", message, param)


def bad_request(message: str, param: str | None = None) -> ApiError:
    """What vLLM's checks refuse: a wrong value."""
    return ApiError(400, "BadRequestError", message, param)


def of_declined(declined: Declined) -> ApiError:
    return _OF_REASON.get(declined.reason, _FAILED)


def _busy(message: str) -> ApiError:
    return ApiError(_BUSY, "ServiceUnavailableError", message, retry=True)


_FAILED: Final = ApiError(500, "InternalServerError", "the prompt could not be tokenized")
_OF_REASON: Final[Mapping[SkipReason, ApiError]] = {
    SkipReason.NO_BODY: malformed("the request has no body"),
    SkipReason.OVERSIZE: ApiError(
        413, "RequestEntityTooLarge", "the request is larger than is tokenized here"
    ),
    SkipReason.INVALID_JSON: malformed("the body is no JSON object that can be read"),
    SkipReason.BAD_REQUEST_SHAPE: malformed("a field that decides the prompt has another shape than it may"),
    SkipReason.UNKNOWN_MODEL: ApiError(404, "NotFoundError", "the model does not exist", "model"),
    SkipReason.MULTIMODAL: bad_request("this is not a multimodal model: text parts only"),
    SkipReason.PROMPT_LIST: malformed("a prompt is one text or one list of ids", "body.prompt"),
    SkipReason.EMPTY_PROMPT: bad_request("No token_ids rendered"),
    SkipReason.NO_CHAT_TEMPLATE: bad_request("the model has no chat template"),
    SkipReason.RENDER_FAILED: bad_request("the chat template refuses these messages"),
    SkipReason.RENDER_LIMIT: bad_request("the rendered prompt is longer than is allowed here"),
    SkipReason.RENDER_DEADLINE: _busy("rendering took too long"),
    SkipReason.QUEUE_FULL: _busy("too many prompts wait already"),
    SkipReason.DEADLINE: _busy("tokenizing took too long"),
    SkipReason.BREAKER_OPEN: _busy("tokenizing this model has failed again and again"),
}
