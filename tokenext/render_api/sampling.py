"""`sampling_params` of a rendered request: what the client asked for, as vLLM 0.32 carries it on.

sampling_params.py and entrypoints/openai/*/protocol.py of vLLM. A key that is absent has vLLM's default
there, too, so nothing is written that says nothing, but what vLLM always writes.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta

from extproc.verdict import JsonValue
from tokenext.render_api.conversion import convert
from tokenext.render_api.errors import bad_request, malformed
from tokenext.render_api.fields import Fields
from tokenext.render_api.structured import structured_outputs

__all__ = ["Sampling", "read_sampling"]

MAX_STOPS: Final = 4
MAX_N: Final = 16384
COMPLETION_MAX_TOKENS: Final = 16  # where a completion names none
_LOWEST_TEMPERATURE: Final = 0.01
_NO_REPETITION: Final[Mapping[str, JsonValue]] = {
    "max_pattern_size": 0,
    "min_pattern_size": 0,
    "min_count": 0,
}
_FINAL_ONLY, _DELTA = 2, 1  # vLLM's RequestOutputKind
_Seed = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]


class Sampling(msgspec.Struct, frozen=True, kw_only=True):
    """The fields of both APIs that reach sampling_params. Types are lax, as pydantic's: "5" is a number."""

    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    repetition_penalty: float | None = None
    n: int | None = None
    seed: _Seed | None = None
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
    bad_words: list[str] = []  # msgspec copies it
    stream: bool | None = None
    stream_options: dict[str, Any] | None = None
    echo: bool | None = None
    priority: int = 0
    vllm_xargs: dict[str, Any] | None = None
    kv_transfer_params: dict[str, Any] | None = None
    ec_transfer_params: dict[str, Any] | None = None
    response_format: dict[str, Any] | None = None
    structured_outputs: dict[str, Any] | None = None
    logprob_token_ids: list[int] | None = None
    stream_interval: int | None = None
    thinking_token_budget: int | None = None
    repetition_detection: dict[str, Any] | None = None
    routed_experts_prompt_start: int = 0
    watermarking: bool | None = None

    def with_defaults(self, defaults: Mapping[str, JsonValue], *, chat: bool) -> "Sampling":
        """With the model's own, by field, for what is not asked for. A completion has a bound of its own."""
        bounded = not chat or self.bound(chat=chat)[1] is not None
        left_out = {
            name: value
            for name, value in defaults.items()
            if getattr(self, name) is None and not (name == "max_tokens" and bounded)
        }
        return msgspec.structs.replace(self, **left_out) if left_out else self

    def params(self, *, chat: bool, room: int | None) -> dict[str, JsonValue]:
        """As JSON. `room`: what the context has left, None where it is not known. Raises ApiError."""
        self._check(chat=chat, room=room)
        params: dict[str, JsonValue] = {
            "presence_penalty": _or(self.presence_penalty, 0.0),
            "frequency_penalty": _or(self.frequency_penalty, 0.0),
            "repetition_penalty": _or(self.repetition_penalty, 1.0),
            "temperature": _warm_enough(_or(self.temperature, 1.0)),
            "top_p": _or(self.top_p, 1.0),
            "min_p": _or(self.min_p, 0.0),
            "stop": [*self._stops()],
            "stop_token_ids": [*dict.fromkeys(self.stop_token_ids or ())],
            "output_kind": _DELTA if self.stream else _FINAL_ONLY,
            "skip_clone": True,
            "bad_words": [*self.bad_words],
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
            "extra_args": self._extra_args(chat=chat) or None,
            "structured_outputs": structured_outputs(self.structured_outputs, self.response_format),
            "logprob_token_ids": [*self.logprob_token_ids] if self.logprob_token_ids else None,
            "stream_interval": self.stream_interval,
            "thinking_token_budget": self.thinking_token_budget,
            "repetition_detection": _repetition(self.repetition_detection),
            "routed_experts_prompt_start": self.routed_experts_prompt_start or None,
            "watermarking": self.watermarking,
        }
        return {**params, **{name: value for name, value in optional.items() if value is not None}}

    def bound(self, *, chat: bool) -> tuple[str, int | None]:
        """The field that bounds the answer, and what it says."""
        if chat and self.max_completion_tokens is not None:
            return "max_completion_tokens", self.max_completion_tokens
        return "max_tokens", self.max_tokens

    def max_tokens_within(self, room: int | None, *, chat: bool) -> int | None:
        """The answer's bound: what is asked for, and what the context has left. Raises ApiError for none."""
        _, asked = self.bound(chat=chat)
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
        return (self.top_logprobs or 0) if self.logprobs and not self.logprob_token_ids else None

    def _extra_args(self, *, chat: bool) -> dict[str, JsonValue]:
        """What is the engine's own business. Ids of a chat are taken out, and are the answer."""
        transfer = dict(self.kv_transfer_params or {})
        if chat:
            transfer.pop("prompt_token_ids", None)
        given = {"kv_transfer_params": transfer, "ec_transfer_params": self.ec_transfer_params}
        return {**(self.vllm_xargs or {}), **{name: value for name, value in given.items() if value}}

    def _prompt_logprobs(self, *, chat: bool) -> int | None:
        if self.prompt_logprobs is None and self.echo:
            return 0 if chat else self._logprobs(chat=False)
        return self.prompt_logprobs

    def _check(self, *, chat: bool, room: int | None) -> None:
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
        if "" in stops or "" in self.bad_words:
            raise bad_request("stop and bad_words cannot contain an empty string")
        if self.temperature == 0 and (self.n or 1) > 1:
            raise bad_request("n must be 1 when temperature is 0")
        if not all(_is_id(key) for key in self.logit_bias or ()):
            raise bad_request("keys of logit_bias must be ids", "logit_bias")
        most = self.max_tokens_within(room, chat=chat)
        if most is not None and (self.min_tokens or 0) > most:
            raise bad_request("min_tokens must not be above max_tokens")


# Whose name vLLM gives where they are out of bounds.
_NAMED: Final = frozenset({"temperature", "top_p", "top_logprobs", "logprobs", "prompt_logprobs"})
_INTEGERS: Final = ("max_tokens", "max_completion_tokens", "top_k", "n", "seed", "min_tokens", "priority")
_NUMBERS: Final = (
    "temperature",
    "top_p",
    "min_p",
    "presence_penalty",
    "frequency_penalty",
    "repetition_penalty",
)
_INFINITE: Final = float("inf")
_BOUNDS: Final = (
    ("temperature", 0, 2), ("top_p", 0, 1), ("top_k", -1, _INFINITE), ("min_p", 0, 1),
    ("presence_penalty", -2, 2), ("frequency_penalty", -2, 2), ("repetition_penalty", 0, _INFINITE),
    ("n", 1, MAX_N), ("min_tokens", 0, _INFINITE), ("prompt_logprobs", -1, _INFINITE),
    ("top_logprobs", -1, _INFINITE), ("logprobs", -1, _INFINITE),
)  # fmt: skip


def read_sampling(fields: Fields, *, chat: bool) -> Sampling:
    """Raises ApiError for what is of another type."""
    given = {name: fields.value(name) for name in Sampling.__struct_fields__ if name in fields}
    if chat and type(given.get("logprobs")) in {int, float} and given["logprobs"] not in (0, 1):
        raise malformed("logprobs must be true or false", "body.logprobs")
    if not chat and "n" in given and given["n"] is None:
        raise malformed("n must be a number", "body.n")
    # pydantic reads true as 1.
    numbers = {
        name: int(value) for name in (*_INTEGERS, *_NUMBERS) if isinstance(value := given.get(name), bool)
    }
    return convert({**given, **numbers}, Sampling)


def _is_id(text: str) -> bool:
    return text.removeprefix("-").isdecimal()


def _warm_enough(temperature: float) -> float:
    """VLLM's _MAX_TEMP: what is lower, and not 0, overflows."""
    return _LOWEST_TEMPERATURE if 0 < temperature < _LOWEST_TEMPERATURE else temperature


def _repetition(asked: Mapping[str, JsonValue] | None) -> dict[str, JsonValue] | None:
    return None if asked is None else {**_NO_REPETITION, **asked}


def _or(value: float | None, default: float) -> float:
    return default if value is None else value


def _unless_default(most: int | None) -> int | None:
    return None if most == COMPLETION_MAX_TOKENS else most


def _clamped(bias: Mapping[str, float] | None) -> dict[str, JsonValue] | None:
    return None if bias is None else {key: max(-100.0, min(100.0, value)) for key, value in bias.items()}
