"""What vLLM 0.32 refuses whatever the model, before it looks at types: contradictions between fields.

Its request classes' validators of mode "before" (entrypoints/openai/*/protocol.py).
"""

from typing import Final

from extproc.verdict import JsonValue
from tokenext.render_api.errors import bad_request, malformed
from tokenext.render_api.fields import Fields

__all__ = ["check_chat", "check_completion", "check_continuation"]

_MAX_SALT: Final = 128
_TRUE: Final = b"true"
_CHOICES: Final = ("auto", "required")
_FORMATS: Final = ("text", "json_object", "json_schema", "structural_tag")
_STRUCTURES: Final = ("json", "regex", "choice", "grammar", "json_object", "structural_tag")


def check_chat(fields: Fields) -> None:
    """Raises ApiError."""
    if fields.is_empty_list("tools"):
        raise bad_request("tools must not be an empty list", "tools")
    if fields.is_given("tool_choice"):
        _check_tool_choice(fields.value("tool_choice"), fields.value("tools"))
    if fields.is_given("top_logprobs"):
        asked = fields.value("top_logprobs")
        if asked and not fields.value("logprobs"):
            raise bad_request("top_logprobs needs logprobs", "top_logprobs")
    _check_shared(fields, structured="")
    check_continuation(fields)


def check_completion(fields: Fields) -> None:
    """Raises ApiError."""
    if fields.is_given("logprobs") and isinstance(fields.value("logprobs"), str):
        raise bad_request("logprobs must be an integer", "logprobs")
    _check_shared(fields, structured="structured_outputs")
    if not fields.is_given("prompt") or fields.opening("prompt") == b'""':
        raise bad_request("prompt must be provided and not be empty", "prompt")


def _check_shared(fields: Fields, *, structured: str) -> None:
    """`structured`: the field that vLLM names for two kinds of structured output, "" for none."""
    _check_salt(fields)
    streams = fields.opening("stream") == _TRUE
    if fields.is_given("stream_options") and not streams and fields.value("stream") in (None, False):
        raise bad_request("stream_options can only be defined when stream is true", "stream_options")
    if fields.is_given("prompt_logprobs") and streams:
        raise bad_request("prompt_logprobs are not available when stream is true", "prompt_logprobs")
    if fields.is_given("response_format"):
        _check_format(fields.value("response_format"))
    outputs = fields.value("structured_outputs")
    if isinstance(outputs, dict) and sum(outputs.get(name) is not None for name in _STRUCTURES) > 1:
        raise bad_request("only one kind of structured output at a time", structured or None)


def _check_format(wanted: JsonValue) -> None:
    if not isinstance(wanted, dict):
        return
    if wanted.get("type") not in _FORMATS:
        raise malformed("response_format has no type that is known", "body.response_format.type")
    if wanted["type"] == "json_schema" and wanted.get("json_schema") is None:
        raise bad_request("json_schema must be provided", "response_format")


def _check_salt(fields: Fields) -> None:
    if not fields.is_given("cache_salt"):
        return
    salt = fields.value("cache_salt")
    if not isinstance(salt, str) or not 0 < len(salt) <= _MAX_SALT or any(each in salt for each in "@/\\\0"):
        raise bad_request("cache_salt must be 1 to 128 characters, none of them @ / \\ or NUL", "cache_salt")


def check_continuation(fields: Fields) -> None:
    """Raises ApiError."""
    if (
        fields.opening("continue_final_message") == _TRUE
        and fields.opening("add_generation_prompt") != b"false"
    ):
        raise bad_request("continue_final_message and add_generation_prompt are not compatible")


def _check_tool_choice(choice: JsonValue, tools: JsonValue) -> None:
    if choice == "none":
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
    if not isinstance(tools, list):
        return []
    functions = [each.get("function") for each in tools if isinstance(each, dict)]
    return [each.get("name") for each in functions if isinstance(each, dict)]
