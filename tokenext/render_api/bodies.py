"""Request bodies of the render API: what is refused before anything is rendered, and which prompts they hold.

The checks and their order are those of vLLM 0.32's request classes; docs/render-api.md lists where we differ.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import orjson

from extproc.token_metadata import TokenIds
from extproc.verdict import JsonValue
from tokenext.render_api.errors import bad_request, malformed
from tokenext.render_api.sampling import Sampling, read_sampling

__all__ = ["CHAT", "COMPLETION", "Rendering", "detokenize_ids", "read_rendering", "read_tokenize"]

CHAT: Final = "/v1/chat/completions"
COMPLETION: Final = "/v1/completions"
MAX_PROMPTS: Final = 1024
_MAX_SALT: Final = 128
_U32: Final = 2**32
_Fields = dict[str, JsonValue]
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
    prompts: tuple[bytes | TokenIds, ...]

    @property
    def chat(self) -> bool:
        return self.path == CHAT


def read_object(body: bytes) -> _Fields:
    """Raises ApiError."""
    try:
        fields = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise malformed("the body is no JSON", f"body.{error.pos}" if body else "body") from None
    if not isinstance(fields, dict):
        raise malformed("the body is no JSON object")
    return fields


def read_rendering(path: str, body: bytes, *, only_model: str) -> Rendering:
    """`only_model` is whom a request without a model means; "" for nobody. Raises ApiError."""
    fields = read_object(body)
    chat = path == CHAT
    if chat:
        _check_chat(fields)
    else:
        _check_completion(fields)
    _check_salt(fields.get("cache_salt"))
    sampling = read_sampling(fields, chat=chat)
    model = _model(fields, only_model)
    prompts = (_chat_prompt(fields, model),) if chat else tuple(_completion_prompts(fields, model))
    return Rendering(path, fields, model, sampling, prompts)


def read_tokenize(body: bytes, *, only_model: str) -> tuple[str, bytes, str, bool]:
    """Path, body and model of the request that has the same prompt, and whether its pieces are wanted.

    The body is b"" for an empty prompt, which no API takes.
    """
    fields = read_object(body)
    pieces = fields.get("return_token_strs") is True
    model = _model(fields, only_model)
    if "messages" in fields:
        kept = {name: fields[name] for name in _TOKENIZE_CHAT if name in fields}
        if kept.get("tools") == []:
            del kept["tools"]
        _check_continuation(fields)
        kept["messages"] = _without_reasoning_content(_messages(fields))
        return CHAT, orjson.dumps({**kept, "model": model}), model, pieces
    prompt = fields.get("prompt")
    if not isinstance(prompt, str):
        raise malformed("prompt must be a text", "body.prompt")
    special = fields.get("add_special_tokens", True)
    request = {"model": model, "prompt": prompt, "add_special_tokens": special}
    return COMPLETION, orjson.dumps(request) if prompt else b"", model, pieces


def detokenize_ids(body: bytes) -> tuple[list[int], JsonValue]:
    """The ids and the model of a /detokenize request."""
    fields = read_object(body)
    tokens = fields.get("tokens")
    ids = [each for each in tokens if type(each) is int] if isinstance(tokens, list) else None
    if ids is None or len(ids) != len(tokens) or min(ids, default=0) < 0:  # type: ignore[arg-type]  # a list
        raise malformed("tokens must be a list of ids", "body.tokens")
    if max(ids, default=0) >= _U32:
        raise bad_request("an id is too large")
    return ids, fields.get("model")


def _model(fields: Mapping[str, JsonValue], only_model: str) -> str:
    model = fields.get("model")
    if model is not None and not isinstance(model, str):
        raise malformed("model must be a text", "body.model")
    return model or only_model


def _messages(fields: Mapping[str, JsonValue]) -> list[JsonValue]:
    messages = fields.get("messages")
    if not isinstance(messages, list):
        raise malformed("messages must be a list", "body.messages")
    if not messages:
        raise bad_request("Cannot apply chat template to an empty conversation.")
    return messages


def _check_chat(fields: Mapping[str, JsonValue]) -> None:
    if fields.get("tools") == []:
        raise bad_request("tools must not be an empty list", "tools")
    if fields.get("tool_choice") not in (None, "none") and not fields.get("tools"):
        raise bad_request("tool_choice needs tools", "tool_choice")
    _check_continuation(fields)
    _messages(fields)
    if fields.get("use_beam_search") is True:
        raise bad_request("Beam search is not supported by the render endpoint")
    if fields.get("chat_template") is not None:
        raise bad_request("a request's own chat template is not trusted here", "chat_template")


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
        raise malformed("cache_salt must be a text", "body.cache_salt")
    if not 0 < len(salt) <= _MAX_SALT or any(each in salt for each in "@/\\\0"):
        raise bad_request("cache_salt must be 1 to 128 characters, none of them @ / \\ or NUL", "cache_salt")


def _chat_prompt(fields: Mapping[str, JsonValue], model: str) -> bytes | TokenIds:
    transfer = fields.get("kv_transfer_params")
    if isinstance(transfer, dict) and "prompt_token_ids" in transfer and not fields.get("echo"):
        where = "kv_transfer_params.prompt_token_ids"
        ids = transfer["prompt_token_ids"]
        if not isinstance(ids, list) or not ids or not all(type(each) is int for each in ids):
            raise bad_request("prompt_token_ids must be a list of ids, not empty", where)
        return _packed(ids, where)
    return orjson.dumps({**fields, "model": model})


def _completion_prompts(fields: Mapping[str, JsonValue], model: str) -> list[bytes | TokenIds]:
    prompt = fields["prompt"]
    if isinstance(prompt, str):
        return [_completion_prompt(fields, model, prompt)]
    if not isinstance(prompt, list):
        raise malformed("prompt must be a text, a list of ids, or a list of either", "body.prompt")
    if not prompt:
        raise bad_request("You must pass at least one prompt")
    if all(type(each) is int for each in prompt):
        return [_packed(prompt, "body.prompt.0")]
    if len(prompt) > MAX_PROMPTS:
        raise bad_request(f"at most {MAX_PROMPTS} prompts", "prompt")
    prompts: list[bytes | TokenIds] = []
    for each in prompt:
        if each in ("", []):
            raise bad_request("No token_ids rendered")
        if isinstance(each, list) and all(type(one) is int for one in each):
            prompts.append(_packed(each, "body.prompt.0"))
        elif isinstance(each, str) and all(isinstance(other, str) for other in prompt):
            prompts.append(_completion_prompt(fields, model, each))
        else:
            raise malformed("prompts are all texts or all lists of ids", "body.prompt.0")
    return prompts


def _completion_prompt(fields: Mapping[str, JsonValue], model: str, prompt: str) -> bytes:
    return orjson.dumps({**fields, "model": model, "prompt": prompt})


def _packed(ids: list[JsonValue], where: str) -> TokenIds:
    try:
        return TokenIds.pack(ids)  # type: ignore[arg-type]  # integers, as the caller has checked
    except OverflowError:
        raise malformed("an id is negative or too large", where) from None


def _without_reasoning_content(messages: list[JsonValue]) -> list[JsonValue]:
    """VLLM renames the field for chats, and not for /tokenize, where it is lost."""
    return [
        {name: value for name, value in each.items() if name != "reasoning_content"}
        if isinstance(each, dict)
        else each
        for each in messages
    ]
