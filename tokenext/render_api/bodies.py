"""Request bodies of the render API: what is refused before anything is rendered, and which prompts they hold.

The checks and their order are those of vLLM 0.32's request classes; docs/render-api.md lists where we differ.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import orjson

from extproc.token_metadata import TokenIds
from extproc.verdict import JsonValue
from tokenext.json_object import JsonObject, join, read
from tokenext.render_api.body import MESSAGES, Body
from tokenext.render_api.errors import bad_request, malformed
from tokenext.render_api.sampling import Sampling, read_sampling

__all__ = ["CHAT", "COMPLETION", "Rendering", "detokenize_ids", "read_rendering", "read_tokenize"]

CHAT: Final = "/v1/chat/completions"
COMPLETION: Final = "/v1/completions"
MAX_PROMPTS: Final = 1024
_MAX_SALT: Final = 128
_U32: Final = 2**32
_I64: Final = 2**63
_EFFORTS: Final = frozenset({"none", "minimal", "low", "medium", "high", "xhigh", "max"})
_CHOICES: Final = ("none", "auto", "required")
# vLLM takes these only where its operator trusts clients with them.
_UNTRUSTED: Final = ("chat_template", "mm_processor_kwargs", "media_io_kwargs")
# All that /tokenize reads of a chat, by vLLM's TokenizeChatRequest.
_TOKENIZE_CHAT: Final = (
    "model", "messages", "add_generation_prompt", "continue_final_message", "add_special_tokens", "tools",
    "chat_template_kwargs",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Rendering:
    """`prompts` are bodies of the API `path`, one for each list of ids, or ids that the client brought."""

    path: str
    fields: Mapping[str, JsonValue]
    model: str
    sampling: Sampling
    prompts: tuple[JsonObject | TokenIds, ...]

    @property
    def chat(self) -> bool:
        return self.path == CHAT


def read_rendering(path: str, body: bytes, *, only_model: str) -> Rendering:
    """`only_model` is whom a request without a model means; "" for nobody. Raises ApiError."""
    read_in = Body(body)
    fields = read_in.fields
    chat = path == CHAT
    if chat:
        _check_chat(fields, read_in)
    else:
        _check_completion(fields)
    _check_salt(fields.get("cache_salt"))
    if "request_id" in fields and not isinstance(fields["request_id"], str):
        raise malformed("request_id must be a text", "body.request_id")
    sampling = read_sampling(fields, chat=chat)
    model = _model(fields, only_model)
    prompts = (_chat_prompt(read_in, model),) if chat else tuple(_completion_prompts(fields, model))
    return Rendering(path, fields, model, sampling, prompts)


def read_tokenize(body: bytes, *, only_model: str) -> tuple[str, bytes, str, bool]:
    """Path, body and model of the request that has the same prompt, and whether its pieces are wanted.

    The body is b"" for an empty prompt, which no API takes.
    """
    read_in = Body(body)
    fields = read_in.fields
    pieces = fields.get("return_token_strs") is True
    model = _model(fields, only_model)
    if MESSAGES in read_in.raw.fields:
        _check_continuation(fields)
        _check_trust(fields)
        read_in.check_messages()
        kept = {
            name: bytes(read_in.raw.fields[name]) for name in _TOKENIZE_CHAT if name in read_in.raw.fields
        }
        if fields.get("tools") == []:
            del kept["tools"]
        kept[MESSAGES] = _without_reasoning_content(kept[MESSAGES])
        return CHAT, join({**kept, "model": orjson.dumps(model)}), model, pieces
    prompt = fields.get("prompt")
    if not isinstance(prompt, str):
        raise malformed("prompt must be a text", "body.prompt")
    special = fields.get("add_special_tokens", True)
    request = {"model": model, "prompt": prompt, "add_special_tokens": special}
    return COMPLETION, orjson.dumps(request) if prompt else b"", model, pieces


def detokenize_ids(body: bytes) -> tuple[list[int], JsonValue]:
    """The ids and the model of a /detokenize request."""
    fields = Body(body).fields
    tokens = fields.get("tokens")
    ids = [_integer(each) for each in tokens] if isinstance(tokens, list) else [None]
    known = [each for each in ids if each is not None and 0 <= each < _I64]
    if len(known) != len(ids):
        raise malformed("tokens must be a list of ids", "body.tokens")
    if max(known, default=0) >= _U32:
        raise bad_request("an id is too large")
    return known, fields.get("model")


def _model(fields: Mapping[str, JsonValue], only_model: str) -> str:
    model = fields.get("model")
    if model is not None and not isinstance(model, str):
        raise malformed("model must be a text", "body.model")
    return model or only_model


def _check_chat(fields: Mapping[str, JsonValue], body: Body) -> None:
    if fields.get("tools") == []:
        raise bad_request("tools must not be an empty list", "tools")
    _check_tool_choice(fields.get("tool_choice"), fields.get("tools"))
    _check_continuation(fields)
    body.check_messages()
    if fields.get("use_beam_search") is True:
        raise bad_request("Beam search is not supported by the render endpoint")
    _check_trust(fields)
    if fields.get("reasoning_effort") not in (None, *_EFFORTS):
        raise malformed("reasoning_effort is none of the known words", "body.reasoning_effort")


def _check_trust(fields: Mapping[str, JsonValue]) -> None:
    arguments = fields.get("chat_template_kwargs")
    inside = isinstance(arguments, dict) and "chat_template" in arguments
    if inside or any(fields.get(name) is not None for name in _UNTRUSTED):
        raise bad_request("a request's own chat template or media arguments are not trusted here")


def _check_tool_choice(choice: JsonValue, tools: JsonValue) -> None:
    if choice in (None, "none"):
        return
    if not tools:
        raise bad_request("tool_choice needs tools", "tool_choice")
    if choice in _CHOICES:
        return
    function = choice.get("function") if isinstance(choice, dict) else None
    name = function.get("name") if isinstance(function, dict) else None
    if name is None or name not in _names(tools):
        raise bad_request("tool_choice names none of the tools", "tool_choice")


def _names(tools: JsonValue) -> list[JsonValue]:
    functions = (
        [each.get("function") for each in tools if isinstance(each, dict)] if isinstance(tools, list) else []
    )
    return [each.get("name") for each in functions if isinstance(each, dict)]


def _typed_tools(tools: JsonValue) -> JsonValue:
    """VLLM's default for a tool's type is written into the prompt."""
    if not isinstance(tools, list):
        return tools
    return [
        {"type": "function", **each} if isinstance(each, dict) and "function" in each else each
        for each in tools
    ]


def _check_continuation(fields: Mapping[str, JsonValue]) -> None:
    if (
        fields.get("continue_final_message") is True
        and fields.get("add_generation_prompt", True) is not False
    ):
        raise bad_request("continue_final_message and add_generation_prompt are not compatible")


def _check_completion(fields: Mapping[str, JsonValue]) -> None:
    prompt = fields.get("prompt")
    if prompt is None or prompt == "":
        raise bad_request("prompt must be provided and non-empty", "prompt")
    if fields.get("suffix") is not None:
        raise bad_request("suffix is not supported", "suffix")
    if fields.get("prompt_embeds") is not None:
        raise bad_request("prompt_embeds are not enabled", "prompt_embeds")
    if fields.get("use_beam_search") is True:
        raise bad_request("Beam search is not supported by the render endpoint")


def _check_salt(salt: JsonValue) -> None:
    if salt is None:
        return
    if not isinstance(salt, str):
        raise bad_request("cache_salt must be a text", "cache_salt")
    if not 0 < len(salt) <= _MAX_SALT or any(each in salt for each in "@/\\\0"):
        raise bad_request("cache_salt must be 1 to 128 characters, none of them @ / \\ or NUL", "cache_salt")


def _chat_prompt(body: Body, model: str) -> JsonObject | TokenIds:
    fields = body.fields
    transfer = fields.get("kv_transfer_params")
    if isinstance(transfer, dict) and "prompt_token_ids" in transfer and not fields.get("echo"):
        where = "kv_transfer_params.prompt_token_ids"
        ids = transfer["prompt_token_ids"]
        known = [each for each in ids if type(each) is int] if isinstance(ids, list) else []
        if not known or len(known) != len(ids):  # type: ignore[arg-type]  # a list, since it is not empty
            raise bad_request("prompt_token_ids must be a list of ids, not empty", where)
        return _packed(known, where)
    tools = {"tools": _typed_tools(fields["tools"])} if fields.get("tools") else {}
    return body.with_values(model=model, **tools)


def _completion_prompts(fields: Mapping[str, JsonValue], model: str) -> list[JsonObject | TokenIds]:
    prompt = fields["prompt"]
    if isinstance(prompt, str):
        return [_completion_prompt(fields, model, prompt)]
    if not isinstance(prompt, list):
        raise malformed("prompt must be a text, a list of ids, or a list of either", "body.prompt")
    if not prompt:
        raise bad_request("You must pass at least one prompt")
    if not any(isinstance(each, str | list) for each in prompt):
        return [_given(fields, model, prompt)]
    if len(prompt) > MAX_PROMPTS:
        raise bad_request(f"at most {MAX_PROMPTS} prompts", "prompt")
    prompts: list[JsonObject | TokenIds] = []
    for each in prompt:
        if each in ("", []):
            raise bad_request("No token_ids rendered")
        if isinstance(each, list):
            prompts.append(_given(fields, model, each))
        elif isinstance(each, str) and all(isinstance(other, str) for other in prompt):
            prompts.append(_completion_prompt(fields, model, each))
        else:
            raise malformed("prompts are all texts or all lists of ids", "body.prompt.0")
    return prompts


def _given(fields: Mapping[str, JsonValue], model: str, given: list[JsonValue]) -> JsonObject | TokenIds:
    """Ids of the client's own. They stay as they are, unless they are to be truncated."""
    ids = [_integer(each) for each in given]
    known = [each for each in ids if each is not None]
    if len(known) != len(ids):
        raise malformed("a prompt is a text or a list of ids", "body.prompt.0")
    if fields.get("truncate_prompt_tokens") is not None:
        return read(orjson.dumps({**fields, "model": model, "prompt": known}))
    return _packed(known, "body.prompt.0")


def _integer(value: JsonValue) -> int | None:
    """As pydantic reads one: 1.0, true and "1" are 1."""
    if isinstance(value, str):
        return int(value) if value.isascii() and value.isdecimal() and len(value) < 20 else None  # noqa: PLR2004
    if isinstance(value, float):
        return int(value) if value.is_integer() else None
    return int(value) if isinstance(value, int) else None


def _completion_prompt(fields: Mapping[str, JsonValue], model: str, prompt: str) -> JsonObject:
    return read(orjson.dumps({**fields, "model": model, "prompt": prompt}))


def _packed(ids: list[int], where: str) -> TokenIds:
    try:
        return TokenIds.pack(ids)
    except OverflowError:
        raise malformed("an id is negative or too large", where) from None


def _without_reasoning_content(messages: bytes) -> bytes:
    """VLLM renames the field for chats, and not for /tokenize, where it is lost."""
    if b"reasoning_content" not in messages:
        return messages
    try:
        values = orjson.loads(messages)
    except orjson.JSONDecodeError:
        raise malformed("messages cannot be read", "body.messages") from None
    return orjson.dumps(
        [
            {name: value for name, value in each.items() if name != "reasoning_content"}
            if isinstance(each, dict)
            else each
            for each in values
        ]
    )
