"""The fields that decide a prompt, with vLLM's types: lax where those are, and handed on strictly."""

from typing import Annotated, Any, Final, Literal, TypeVar

import msgspec
from msgspec import Meta

from extproc.verdict import JsonValue
from tokenext.render_api.conversion import convert
from tokenext.render_api.fields import Fields

__all__ = ["ChatFields", "CompletionFields", "TokenizeFields", "converted", "restated"]

T = TypeVar("T", bound=msgspec.Struct)
_Object = dict[str, Any]


class Tool(msgspec.Struct, frozen=True):
    function: _Object
    type: str = "function"


class _Shared(msgspec.Struct, frozen=True, kw_only=True):
    model: str | None = None
    request_id: str = ""
    truncate_prompt_tokens: Annotated[int, Meta(ge=-1)] | None = None
    truncation_side: Literal["left", "right"] | None = None
    use_beam_search: bool = False
    kv_transfer_params: _Object | None = None
    ec_transfer_params: _Object | None = None
    return_token_offsets: bool | None = None


class ChatFields(_Shared, frozen=True, kw_only=True):
    tools: list[Tool] | None = None
    chat_template_kwargs: _Object | None = None
    chat_template: str | None = None
    mm_processor_kwargs: _Object | None = None
    media_io_kwargs: _Object | None = None
    documents: list[_Object] | None = None
    reasoning_effort: Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"] | None = None
    include_reasoning: bool = True
    add_generation_prompt: bool = True
    continue_final_message: bool = False
    add_special_tokens: bool = False


class CompletionFields(_Shared, frozen=True, kw_only=True):
    add_special_tokens: bool = True
    suffix: str | None = None


class TokenizeFields(msgspec.Struct, frozen=True, kw_only=True):
    """Of both shapes; `add_special_tokens` is None where the shape's own default counts."""

    model: str | None = None
    return_token_strs: bool | None = None
    add_special_tokens: bool | None = None
    tools: list[Tool] | None = None
    chat_template_kwargs: _Object | None = None
    chat_template: str | None = None
    mm_processor_kwargs: _Object | None = None
    media_io_kwargs: _Object | None = None
    add_generation_prompt: bool = True
    continue_final_message: bool = False


_BOOLEANS: Final = ("add_generation_prompt", "continue_final_message", "add_special_tokens")


def converted(fields: Fields, struct: type[T]) -> T:
    """Raises ApiError for the first field of another type."""
    return convert({name: fields.value(name) for name in struct.__struct_fields__ if name in fields}, struct)


def restated(fields: Fields, typed: ChatFields | CompletionFields | TokenizeFields) -> dict[str, JsonValue]:
    """The values that tokenext.openai would not take as the client wrote them, as it takes them."""
    values: dict[str, JsonValue] = {
        name: getattr(typed, name)
        for name in _BOOLEANS
        if fields.is_given(name) and fields.opening(name) not in (b"true", b"false")
    }
    if not isinstance(typed, CompletionFields) and typed.tools:
        tools = fields.value("tools")
        assert isinstance(tools, list)  # as it was converted
        # vLLM's default is written into the prompt.
        if any("type" not in tool for tool in tools if isinstance(tool, dict)):
            values["tools"] = [{"type": "function", **tool} for tool in tools if isinstance(tool, dict)]
    return values
