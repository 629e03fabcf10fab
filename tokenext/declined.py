"""Why a request is left untokenized."""

from enum import StrEnum
from typing import Final

__all__ = ["FAULTS", "TROUBLE", "Declined", "SkipReason"]


class SkipReason(StrEnum):
    """Why a request passed without a token record; safe as a metric label."""

    NOT_OPENAI_PATH = "not_openai_path"
    NO_BODY = "no_body"
    OVERSIZE = "oversize"
    TOO_MANY_HEADERS = "too_many_headers"
    INVALID_JSON = "invalid_json"
    BAD_REQUEST_SHAPE = "bad_request_shape"
    UNKNOWN_MODEL = "unknown_model"
    MULTIMODAL = "multimodal"
    PROMPT_LIST = "prompt_list"
    EMPTY_PROMPT = "empty_prompt"
    NO_CHAT_TEMPLATE = "no_chat_template"
    RENDER_FAILED = "render_failed"
    RENDER_LIMIT = "render_limit"
    RENDER_DEADLINE = "render_deadline"
    ENGINE_FAILED = "engine_failed"
    DEADLINE = "deadline"
    QUEUE_FULL = "queue_full"
    BREAKER_OPEN = "breaker_open"
    CANCELLED = "cancelled"


# What a request can do nothing for, or not much: the model is at fault, or late.
FAULTS: Final = frozenset({SkipReason.ENGINE_FAILED, SkipReason.RENDER_DEADLINE, SkipReason.DEADLINE})

# Why requests pass that could have been tokenized: the operator's to mend, and the alerts' to tell.
TROUBLE: Final = FAULTS | {SkipReason.QUEUE_FULL, SkipReason.BREAKER_OPEN}


class Declined(Exception):  # noqa: N818  # an answer, not an error: the request goes on without ids
    """The request is not tokenized. It carries no client text, so it may be logged."""

    def __init__(self, reason: SkipReason) -> None:
        super().__init__(reason.value)
        self.reason = reason
