"""OpenAI request bodies as far as they decide the prompt: /v1/chat/completions and /v1/completions.

Shapes follow the OpenAI API reference (chat: create; completions: create) and the extensions of vLLM and
NVIDIA Dynamo. The rule for whatever does not fit is `Declined`: the request goes on unchanged and the model
server gives its own error. What an engine makes of the fields is its profile's business (profiles.py).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from extproc.token_metadata import TokenIds
from extproc.verdict import JsonValue
from tokenext.continued_body import ContinuedBody, go_on
from tokenext.declined import Declined, SkipReason
from tokenext.json_object import JsonObject, NotAnObjectError, read
from tokenext.openai_messages import Message, Role, Tool, read_messages, read_tools
from tokenext.request_fields import RequestFields, require
from tokenext.turns import Conversation, Remembered, Turn

__all__ = [
    "GUARDED_PATHS",
    "Api",
    "ChatRequest",
    "CompletionRequest",
    "Message",
    "PromptRequest",
    "Role",
    "Side",
    "Truncation",
    "parse",
    "read_body",
]


class Api(StrEnum):
    """The APIs that are tokenized, by path."""

    CHAT = "/v1/chat/completions"
    COMPLETION = "/v1/completions"


# Where a model server would honour token ids or worker pins in a body (facts: vLLM 0.32, Dynamo 1.6).
GUARDED_PATHS: Final = frozenset({*Api, "/v1/responses", "/v1/messages"})


class Side(StrEnum):
    """`truncation_side`: where tokens are taken away."""

    LEFT = "left"
    RIGHT = "right"


@dataclass(frozen=True, slots=True)
class Truncation:
    """`truncate_prompt_tokens` of vLLM: keep so many tokens, -1 for as many as the model takes.

    `side` is None where the request leaves it to the tokenizer.
    """

    keep: int
    side: Side | None = None


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """A chat body of sound shape. `fields` names every top-level field that is not null.

    Each message is an object with a role. `unusual` is None where they have OpenAI's shape
    (openai_messages.py), else why engines that know no other refuse them. `template_args` is what Dynamo
    takes for another name of `template_kwargs`; None where absent. `odd_numbers`: see json_numbers.py.
    `cache_salt` keeps what is remembered of the prompt to requests of the same salt, as vLLM does; `turn` is
    what is remembered of this conversation.
    """

    model: str
    fields: frozenset[str]
    messages: tuple[Message, ...]
    tools: tuple[Tool, ...] | None
    tool_choice: JsonValue
    template_kwargs: Mapping[str, JsonValue]
    template_args: Mapping[str, JsonValue] | None
    documents: tuple[Mapping[str, JsonValue], ...] | None
    reasoning_effort: str | None
    add_generation_prompt: bool
    continue_final_message: bool
    add_special_tokens: bool
    truncation: Truncation | None
    odd_numbers: bool
    cache_salt: str = ""
    turn: Turn = field(default_factory=Turn, compare=False, repr=False)
    unusual: SkipReason | None = None

    def require_usual(self) -> None:
        """Raises Declined unless all messages have OpenAI's shape."""
        if self.unusual is not None:
            raise Declined(self.unusual)


@dataclass(frozen=True, slots=True)
class CompletionRequest:
    """A completion body with one prompt, as text or as ids. `fields` as above."""

    model: str
    fields: frozenset[str]
    prompt: str | TokenIds
    add_special_tokens: bool = True
    truncation: Truncation | None = None
    cache_salt: str = ""


PromptRequest = ChatRequest | CompletionRequest


def read_body(body: bytes, conversations: Remembered | None = None) -> JsonObject:
    """Split a body into its fields, looking only at what `conversations` do not know. Raises Declined."""
    continued = None if conversations is None else go_on(body, conversations)
    if continued is not None:
        return continued
    try:
        return read(body)
    except NotAnObjectError:
        raise Declined(SkipReason.INVALID_JSON) from None


def parse(api: Api, body: JsonObject, conversations: Remembered | None = None) -> PromptRequest:
    """What the body asks for. Raises Declined; reads only the fields that decide the prompt.

    Of `messages` it reads only what `conversations` do not know.
    """
    fields = RequestFields(body)
    model = fields.typed("model", str, "")
    require(bool(model))
    # Hand-off adds to these objects; anything else there is the model server's to refuse.
    for name in ("nvext", "kv_transfer_params"):
        fields.typed(name, dict, {})
    if api is Api.COMPLETION:
        return _completion(model, fields)
    cache_salt = fields.typed("cache_salt", str, "")
    turn, unusual = _turn(body, fields, conversations, cache_salt)
    tools = fields.typed("tools", list, None)
    documents = fields.typed("documents", list, None)
    return ChatRequest(
        model=model,
        fields=fields.names,
        messages=turn.messages,
        tools=None if tools is None else read_tools(tools),
        tool_choice=fields.value("tool_choice"),
        template_kwargs=fields.typed("chat_template_kwargs", dict, {}),
        template_args=fields.typed("chat_template_args", dict, None),
        documents=None if documents is None else _documents(documents),
        reasoning_effort=fields.typed("reasoning_effort", str, None),
        add_generation_prompt=fields.typed("add_generation_prompt", bool, True),
        continue_final_message=fields.typed("continue_final_message", bool, False),
        add_special_tokens=fields.typed("add_special_tokens", bool, False),
        truncation=_truncation(fields),
        odd_numbers=fields.odd_numbers,
        cache_salt=cache_salt,
        turn=turn,
        unusual=unusual,
    )


def _turn(
    body: JsonObject, fields: RequestFields, conversations: Remembered | None, isolation: str
) -> tuple[Turn, SkipReason | None]:
    """The messages, where they stand in their conversation, and what is unusual. Raises Declined."""
    text = fields.text("messages").rstrip()
    before: Conversation | None
    if isinstance(body, ContinuedBody):
        before, following = body.before, body.following
    else:
        before = None if conversations is None else conversations.find(isolation, text)
        following = text if before is None else _behind(text, before)
    if before is None:
        read = read_messages(following)
        messages, plain, unusual = read.values, read.plain, read.unusual
    else:
        messages, plain, unusual = before.messages, before.plain, None
        if following != b"[]":
            read = read_messages(following)
            messages, plain, unusual = messages + read.values, plain and read.plain, read.unusual
    # What only one kind of engine takes is not remembered for the others.
    keeper = conversations if unusual is None else None
    return Turn(keeper, isolation, text.removesuffix(b"]").rstrip(), messages, plain, before), unusual


def _behind(text: bytes, before: Conversation) -> bytes:
    """The messages that an array has behind those that are known, as an array."""
    # What begins alike is the same up to here, whatever follows: JSON is read from left to right.
    return b"[" + text[len(before.text) :].lstrip().removeprefix(b",")


def _completion(model: str, fields: RequestFields) -> CompletionRequest:
    return CompletionRequest(
        model=model,
        fields=fields.names,
        prompt=_prompt(fields.value("prompt")),
        add_special_tokens=fields.typed("add_special_tokens", bool, True),
        truncation=_truncation(fields),
        cache_salt=fields.typed("cache_salt", str, ""),
    )


def _documents(values: list[JsonValue]) -> tuple[Mapping[str, JsonValue], ...]:
    documents = [value for value in values if isinstance(value, dict)]
    require(len(documents) == len(values))
    return tuple(documents)


def _truncation(fields: RequestFields) -> Truncation | None:
    keep = fields.typed("truncate_prompt_tokens", int, None)
    side = fields.typed("truncation_side", str, None)
    require(side is None or side in set(Side))
    if keep is None:
        return None
    require(keep == -1 or keep > 0)  # to keep nothing is an error in vLLM, too
    return Truncation(keep, None if side is None else Side(side))


def _prompt(prompt: JsonValue) -> str | TokenIds:
    """One prompt: text, ids, or a list of one of those. Several have no one list of ids."""
    if isinstance(prompt, list) and len(prompt) == 1 and isinstance(prompt[0], str | list):
        prompt = prompt[0]
    if isinstance(prompt, str):
        return prompt
    if not isinstance(prompt, list) or not prompt:
        raise Declined(SkipReason.BAD_REQUEST_SHAPE)
    if isinstance(prompt[0], str | list):
        raise Declined(SkipReason.PROMPT_LIST)
    return _ids(prompt)


def _ids(values: list[JsonValue]) -> TokenIds:
    require(set(map(type, values)) == {int})
    try:
        return TokenIds.pack(values)  # type: ignore[arg-type]  # integers, as just checked
    except OverflowError:
        raise Declined(SkipReason.BAD_REQUEST_SHAPE) from None
