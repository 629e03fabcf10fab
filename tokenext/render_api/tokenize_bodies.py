"""Request bodies of /tokenize and /detokenize, which read fewer fields than the render endpoints do."""

import re
from dataclasses import dataclass
from typing import Final

from extproc.verdict import JsonValue
from tokenext.render_api.bodies import (
    CHAT,
    COMPLETION,
    GivenIds,
    PromptBody,
    check_messages,
    check_trust,
    given_ids,
)
from tokenext.render_api.checks import check_continuation
from tokenext.render_api.conversion import integer
from tokenext.render_api.errors import bad_request, malformed
from tokenext.render_api.fields import Fields, read_fields
from tokenext.render_api.prompt_fields import TokenizeFields, converted, restated
from tokenext.turns import Remembered

__all__ = ["Tokenizing", "detokenize_ids", "read_tokenizing"]

_PROMPT: Final = frozenset({"prompt"})
_UNREAD: Final = re.compile(rb'reasoning_content|"tool_calls"[ \t\r\n]*:[ \t\r\n]*[^\[ \t\r\n]')
_CALLS_NOTHING: Final = ("system", "developer", "user", "tool", "function")
_SALT: Final = frozenset({"cache_salt"})
_U32: Final = 2**32
_I64: Final = 2**63
# All that it reads of a chat: vLLM's TokenizeChatRequest.
_CHAT_FIELDS: Final = frozenset(
    {
        *("model", "messages", "add_generation_prompt", "continue_final_message", "add_special_tokens"),
        *("tools", "chat_template_kwargs"),
    }
)


@dataclass(frozen=True, slots=True)
class Tokenizing:
    fields: Fields
    typed: TokenizeFields

    @property
    def model(self) -> str:
        return self.typed.model or ""

    @property
    def wants_pieces(self) -> bool:
        return bool(self.typed.return_token_strs)

    def prompt(self, model: str) -> tuple[str, PromptBody | GivenIds]:
        """The API, and the body there that has the same prompt; no ids for an empty one. Raises ApiError."""
        if "messages" not in self.fields:
            special = self.typed.add_special_tokens is not False
            prompt = self.fields.value("prompt")
            replaced: dict[str, JsonValue] = {"model": model, "add_special_tokens": special}
            without = self._beside(_PROMPT)
            return COMPLETION, self.fields.with_values(replaced, without) if prompt else []
        check_trust(self.typed)
        check_messages(self.fields)
        given = given_ids(_transfer(self.fields.value("kv_transfer_params")))
        if given is not None:
            return CHAT, given
        replaced = {**restated(self.fields, self.typed), "model": model}
        if self.fields.matches("messages", _UNREAD):
            replaced["messages"] = _without_unread(self.fields.value("messages"))
        without = self._beside(_CHAT_FIELDS)
        if self.fields.is_empty_list("tools"):
            without |= {"tools"}
        return CHAT, self.fields.with_values(replaced, without)

    def _beside(self, read: frozenset[str]) -> frozenset[str]:
        """What there is beside these, and a salt: vLLM reads none here, but block hashes do."""
        return self.fields.names - read - (_SALT if self.fields.text("cache_salt") else frozenset())


def read_tokenizing(body: bytes, conversations: Remembered | None = None) -> Tokenizing:
    """Raises ApiError. vLLM takes either of two shapes, and names the first one's field."""
    fields = read_fields(body, conversations)
    if fields.opening("messages").startswith(b"["):
        check_continuation(fields)
        return Tokenizing(fields, converted(fields, TokenizeFields))
    if not fields.opening("prompt").startswith(b'"'):
        raise malformed("it takes a prompt, which is a text, or messages, which are a list", "body.prompt")
    return Tokenizing(fields, converted(fields, TokenizeFields))


def detokenize_ids(body: bytes) -> tuple[list[int], str]:
    """The ids of a request, and its model, "" where it names none. Raises ApiError."""
    fields = read_fields(body)
    tokens, model = fields.value("tokens"), fields.value("model")
    if not isinstance(model, str | None):
        raise malformed("model must be a text", "body.model")
    if not isinstance(tokens, list):
        raise malformed("tokens must be a list of ids", "body.tokens")
    ids: list[int] = []
    for place, each in enumerate(tokens):
        number = integer(each)
        if number is None or not 0 <= number < _I64:
            raise malformed("tokens must be a list of ids", f"body.tokens.{place}")
        ids.append(number)
    if max(ids, default=0) >= _U32:
        raise bad_request("an id is too large")
    return ids, model or ""


def _transfer(value: JsonValue) -> dict[str, JsonValue] | None:
    return value if isinstance(value, dict) else None


def _without_unread(messages: JsonValue) -> JsonValue:
    """VLLM prepares two fields of messages for chats, and not here: one is lost, the other not looked at."""
    if not isinstance(messages, list):
        return messages
    return [
        {name: value for name, value in each.items() if name not in _unread(each.get("role"))}
        if isinstance(each, dict)
        else each
        for each in messages
    ]


def _unread(role: JsonValue) -> tuple[str, ...]:
    return ("reasoning_content", "tool_calls") if role in _CALLS_NOTHING else ("reasoning_content",)
