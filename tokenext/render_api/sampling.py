"""`sampling_params` of a rendered request: what the client asked for, as vLLM 0.32 carries it on.

sampling_params.py and entrypoints/openai/*/protocol.py of vLLM. A key that is absent has vLLM's default
there, too, so nothing is written that says nothing, but what vLLM always writes.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta

from extproc.verdict import JsonValue
from tokenext.render_api.errors import bad_request, malformed

__all__ = ["Sampling", "read_sampling"]

MAX_STOPS: Final = 4
MAX_N: Final = 16384
COMPLETION_MAX_TOKENS: Final = 16  # where a completion names none
_FINAL_ONLY, _DELTA = 2, 1  # vLLM's RequestOutputKind
_Count = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]


class Sampling(msgspec.Struct, frozen=True, kw_only=True):
    """The fields of both APIs that reach sampling_params. Types are lax, as pydantic's: "5" is a number."""

    max_tokens: _Count | None = None
    max_completion_tokens: _Count | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: _Count | None = None
    min_p: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    repetition_penalty: float | None = None
    n: _Count | None = None
    seed: _Count | None = None
    stop: str | list[str] | None = None
    stop_token_ids: list[int] | None = None
    logprobs: bool | int | None = None
    top_logprobs: int | None = None
    prompt_logprobs: int | None = None
    min_tokens: int | None = None
    ignore_eos: bool = False
    include_stop_str_in_output: bool = False
    skip_special_tokens: bool = True
    spaces_between_special_tokens: bool = True
    logit_bias: dict[str, float] | None = None
    allowed_token_ids: list[int] | None = None
    bad_words: list[str] | None = None
    stream: bool | None = None
    stream_options: dict[str, Any] | None = None
    echo: bool | None = None
    priority: int = 0
    vllm_xargs: dict[str, Any] | None = None

    def params(self, *, chat: bool, room: int | None) -> dict[str, JsonValue]:
        """As JSON. `room`: what the context has left, None where it is not known. Raises ApiError."""
        self._check(chat=chat)
        params: dict[str, JsonValue] = {
            "presence_penalty": _or(self.presence_penalty, 0.0),
            "frequency_penalty": _or(self.frequency_penalty, 0.0),
            "repetition_penalty": _or(self.repetition_penalty, 1.0),
            "temperature": _or(self.temperature, 1.0),
            "top_p": _or(self.top_p, 1.0),
            "min_p": _or(self.min_p, 0.0),
            "stop": [*self._stops()],
            "stop_token_ids": [*dict.fromkeys(self.stop_token_ids or ())],
            "output_kind": _DELTA if self.stream else _FINAL_ONLY,
            "skip_clone": True,
            "bad_words": [*(self.bad_words or ())],
            "skip_reading_prefix_cache": self._prompt_logprobs(chat=chat) is not None,
        }
        if self.temperature == 0:
            params = {name: value for name, value in params.items() if name not in {"top_p", "min_p"}}
        optional: Mapping[str, JsonValue] = {
            "n": None if self.n == 1 else self.n,
            "top_k": None if self.temperature == 0 else self.top_k or None,
            "seed": None if self.seed == -1 else self.seed,
            "max_tokens": _unless_default(self.max_tokens_within(room, chat=chat)),
            "output_text_buffer_length": self._held_back() or None,
            "min_tokens": self.min_tokens or None,
            "logprobs": self._logprobs(chat=chat),
            "prompt_logprobs": self._prompt_logprobs(chat=chat),
            "ignore_eos": self.ignore_eos or None,
            "include_stop_str_in_output": self.include_stop_str_in_output or None,
            "skip_special_tokens": None if self.skip_special_tokens else False,
            "spaces_between_special_tokens": None if self.spaces_between_special_tokens else False,
            "logit_bias": _clamped(self.logit_bias),
            "allowed_token_ids": None if self.allowed_token_ids is None else [*self.allowed_token_ids],
            "extra_args": self.vllm_xargs,
        }
        return {**params, **{name: value for name, value in optional.items() if value is not None}}

    def max_tokens_within(self, room: int | None, *, chat: bool) -> int | None:
        """The answer's bound: what is asked for, and what the context has left. Raises ApiError for none."""
        asked = (
            self.max_completion_tokens if chat and self.max_completion_tokens is not None else self.max_tokens
        )
        if asked is None and not chat:
            asked = COMPLETION_MAX_TOKENS
        if asked == 0 and not chat and self.echo:
            asked = 1
        known = [each for each in (asked, room) if each is not None]
        most = min(known) if known else None
        if most is not None and most < 1:
            raise bad_request(f"max_tokens must be at least 1, got {most}.", "max_tokens")
        return most

    def _held_back(self) -> int:
        """How much text vLLM keeps to itself until it is no stop string."""
        return 0 if self.include_stop_str_in_output else max(map(len, self._stops()), default=1) - 1

    def _stops(self) -> list[str]:
        return [self.stop] if isinstance(self.stop, str) else list(self.stop or ())

    def _logprobs(self, *, chat: bool) -> int | None:
        if not chat:
            return None if self.logprobs is None else int(self.logprobs)
        return (self.top_logprobs or 0) if self.logprobs else None

    def _prompt_logprobs(self, *, chat: bool) -> int | None:
        if self.prompt_logprobs is None and self.echo:
            return 0 if chat else self._logprobs(chat=False)
        return self.prompt_logprobs

    def _check(self, *, chat: bool) -> None:
        stops = self._stops()
        if len(stops) > MAX_STOPS:
            raise malformed(f"at most {MAX_STOPS} stop strings", "body.stop")
        for name, low, high in _BOUNDS:
            value = getattr(self, name)
            if value is not None and not low <= value <= high:
                raise bad_request(
                    f"{name} must be from {low:g} to {high:g}", name if name in _NAMED else None
                )
        if self.top_p == 0:
            raise bad_request("top_p must be above 0", "top_p")
        if self.repetition_penalty == 0:
            raise bad_request("repetition_penalty must be above 0")
        if "" in stops or "" in (self.bad_words or ()):
            raise bad_request("stop and bad_words cannot contain an empty string")
        if self.temperature == 0 and (self.n or 1) > 1:
            raise bad_request("n must be 1 when temperature is 0")
        if not all(_is_id(key) for key in self.logit_bias or ()):
            raise bad_request("keys of logit_bias must be ids", "logit_bias")
        most = self.max_tokens_within(None, chat=chat)
        if most is not None and (self.min_tokens or 0) > most:
            raise bad_request("min_tokens must not be above max_tokens")


# Whose name vLLM gives where they are out of bounds.
_NAMED: Final = frozenset({"temperature", "top_p", "top_logprobs", "logprobs", "prompt_logprobs"})
_INTEGERS: Final = ("max_tokens", "max_completion_tokens", "top_k", "n", "seed", "min_tokens", "priority")
_STRUCTURES: Final = ("json", "regex", "choice", "grammar", "json_object", "structural_tag")
_FORMATS: Final = ("text", "json_object", "json_schema", "structural_tag")
_INFINITE: Final = float("inf")
_BOUNDS: Final = (
    ("temperature", 0, 2), ("top_p", 0, 1), ("top_k", -1, _INFINITE), ("min_p", 0, 1),
    ("presence_penalty", -2, 2), ("frequency_penalty", -2, 2), ("repetition_penalty", 0, _INFINITE),
    ("n", 1, MAX_N), ("min_tokens", 0, _INFINITE), ("prompt_logprobs", -1, _INFINITE),
    ("top_logprobs", -1, _INFINITE), ("logprobs", -1, _INFINITE),
)  # fmt: skip


def read_sampling(fields: Mapping[str, JsonValue], *, chat: bool) -> Sampling:
    """Raises ApiError for what is of another type, or contradicts itself whatever the prompt."""
    if chat and type(fields.get("logprobs")) in {int, float} and fields["logprobs"] not in (0, 1):
        raise malformed("logprobs must be true or false", "body.logprobs")
    if not chat and "n" in fields and fields["n"] is None:
        raise malformed("n must be a number", "body.n")
    _check_formats(fields)
    # pydantic reads true as 1.
    numbers = {name: int(fields[name]) for name in _INTEGERS if type(fields.get(name)) is bool}  # type: ignore[arg-type]
    try:
        sampling = msgspec.convert({**fields, **numbers}, Sampling, strict=False)
    except msgspec.ValidationError as error:
        where = (
            str(error).rpartition("at `$.")[2].rstrip("`").partition("[")[0] if "at `$." in str(error) else ""
        )
        raise malformed(
            "a field has another type than it may", f"body.{where}" if where else "body"
        ) from None
    if sampling.stream_options is not None and not sampling.stream:
        raise bad_request("stream_options can only be defined when stream is true", "stream_options")
    if chat and sampling.top_logprobs and not sampling.logprobs:
        raise bad_request("top_logprobs needs logprobs", "top_logprobs")
    if sampling.prompt_logprobs is not None and sampling.stream:
        raise bad_request("prompt_logprobs are not available when stream is true", "prompt_logprobs")
    return sampling


def _check_formats(fields: Mapping[str, JsonValue]) -> None:
    wanted = fields.get("response_format")
    if isinstance(wanted, dict):
        if wanted.get("type") not in _FORMATS:
            raise malformed("response_format has no type that is known", "body.response_format.type")
        if wanted["type"] == "json_schema" and wanted.get("json_schema") is None:
            raise bad_request("json_schema must be provided", "response_format")
    structured = fields.get("structured_outputs")
    if isinstance(structured, dict) and sum(structured.get(name) is not None for name in _STRUCTURES) > 1:
        raise bad_request("only one kind of structured output at a time")


def _is_id(text: str) -> bool:
    return text.removeprefix("-").isdecimal()


def _or(value: float | None, default: float) -> float:
    return default if value is None else value


def _unless_default(most: int | None) -> int | None:
    return None if most == COMPLETION_MAX_TOKENS else most


def _clamped(bias: Mapping[str, float] | None) -> dict[str, JsonValue] | None:
    return None if bias is None else {key: max(-100.0, min(100.0, value)) for key, value in bias.items()}
