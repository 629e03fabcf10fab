"""Request bodies of the render API: what is refused before anything is rendered, and which prompts they hold.

The checks and their order are those of vLLM 0.32 (docs/render-api.md); here it is up to the model's name.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from extproc.verdict import JsonValue
from tokenext.json_object import JsonObject
from tokenext.render_api.checks import check_chat, check_completion
from tokenext.render_api.conversion import integer
from tokenext.render_api.errors import bad_request, malformed
from tokenext.render_api.fields import Fields, read_fields
from tokenext.render_api.prompt_fields import (
    ChatFields,
    CompletionFields,
    TokenizeFields,
    converted,
    restated,
)
from tokenext.render_api.sampling import Sampling, read_sampling
from tokenext.turns import Remembered

__all__ = [
    "CHAT",
    "COMPLETION",
    "GivenIds",
    "PromptBody",
    "Rendering",
    "check_messages",
    "check_trust",
    "given_ids",
    "read_rendering",
]

CHAT: Final = "/v1/chat/completions"
COMPLETION: Final = "/v1/completions"
MAX_PROMPTS: Final = 1024
_GIVEN: Final = "kv_transfer_params.prompt_token_ids"
_PROMPT: Final = frozenset({"prompt"})

GivenIds = list[int]  # of the client's own, and of any size
PromptBody = JsonObject  # of the API that is rendered for, with one prompt


@dataclass(frozen=True, slots=True)
class Rendering:
    """A request whose fields are of their types. The checks that are left need the model. `prompt` is a
    completion's, as decoded.
    """

    path: str
    fields: Fields
    typed: ChatFields | CompletionFields
    sampling: Sampling
    prompt: JsonValue = None

    @property
    def chat(self) -> bool:
        return self.path == CHAT

    @property
    def model(self) -> str:
        return self.typed.model or ""

    def check(self, max_length: int | None) -> None:
        """Raises ApiError. `max_length` is the model's context in tokens, None for no limit."""
        if self.typed.use_beam_search:
            raise bad_request("Beam search is not supported by the render endpoint")
        if isinstance(self.typed, ChatFields):
            check_trust(self.typed)
        name, most = self.sampling.bound(chat=self.chat)
        keep = self.typed.truncate_prompt_tokens
        if max_length is not None:
            if most is not None and most > max_length:
                raise bad_request(f"{name} cannot be greater than the context of {max_length} tokens", name)
            if keep is not None and keep > max_length:
                raise bad_request(
                    f"truncate_prompt_tokens cannot be greater than the context of {max_length} tokens",
                    "truncate_prompt_tokens",
                )
        if self.chat:
            check_messages(self.fields)
        if keep == 0:
            raise bad_request("No token_ids rendered")

    def prompts(self, model: str, max_length: int | None) -> list[PromptBody | GivenIds]:
        """In their order. `model` is whom it is about. Raises ApiError."""
        replaced = restated(self.fields, self.typed)
        if self.typed.model != model:
            replaced["model"] = model
        keep = self._kept(max_length)
        if keep is not None:
            replaced["truncate_prompt_tokens"] = keep
        if isinstance(self.typed, ChatFields):
            given = given_ids(self.typed.kv_transfer_params)
            echoes = bool(self.sampling.echo)
            return [self.fields.with_values(replaced) if given is None or echoes else given]
        return [
            self._truncated(each, keep) if isinstance(each, list) else self._with_prompt(each, replaced)
            for each in _prompts(self.prompt)
        ]

    def _kept(self, max_length: int | None) -> int | None:
        """How many tokens are kept where it is not what the body says: vLLM's renderers/params.py."""
        keep = self.typed.truncate_prompt_tokens
        if keep != -1 or max_length is None:
            return None if self.fields.opening("truncate_prompt_tokens") == str(keep).encode() else keep
        _, most = self.sampling.bound(chat=self.chat)
        return max_length if self.chat and most is None else max_length - 1

    def _with_prompt(self, prompt: str, replaced: dict[str, JsonValue]) -> PromptBody:
        if self.fields.opening("prompt").startswith(b'"'):
            return self.fields.with_values(replaced)
        return self.fields.with_values({**replaced, "prompt": prompt}, _PROMPT)

    def _truncated(self, ids: GivenIds, keep: int | None) -> GivenIds:
        most = self.typed.truncate_prompt_tokens if keep is None else keep
        if most is None or most < 0 or len(ids) <= most:
            return ids
        return ids[:most] if self.typed.truncation_side == "right" else ids[-most:]


def read_rendering(path: str, body: bytes, conversations: Remembered | None = None) -> Rendering:
    """Raises ApiError."""
    fields = read_fields(body, conversations)
    if path == CHAT:
        check_chat(fields)
        if "messages" not in fields:
            raise malformed("messages are required", "body.messages")
        if not fields.opening("messages").startswith((b"[", b"null")):
            raise malformed("messages must be a list", "body.messages")
        return Rendering(path, fields, converted(fields, ChatFields), read_sampling(fields, chat=True))
    check_completion(fields)
    typed = converted(fields, CompletionFields)
    if fields.is_given("prompt_embeds"):
        raise bad_request("prompt_embeds are not enabled", "prompt_embeds")
    if typed.suffix is not None:
        raise bad_request("suffix is not supported", "suffix")
    sampling = read_sampling(fields, chat=False)
    prompt = fields.value("prompt")
    if not isinstance(prompt, str | list):
        raise malformed("prompt must be a text, a list of ids, or a list of either", "body.prompt")
    _prompts(prompt, shape_only=True)
    return Rendering(path, fields, typed, sampling, prompt)


def check_trust(typed: ChatFields | TokenizeFields) -> None:
    """Raises ApiError for what vLLM takes only where its operator trusts clients with it."""
    inside = typed.chat_template_kwargs is not None and "chat_template" in typed.chat_template_kwargs
    if inside or typed.chat_template is not None:
        raise bad_request("a request's own chat template is not trusted here")
    for name in ("mm_processor_kwargs", "media_io_kwargs"):
        if getattr(typed, name) is not None:
            raise bad_request(f"{name} of a request are not trusted here", name)


def check_messages(fields: Fields) -> None:
    """Raises ApiError."""
    if not fields.is_given("messages"):
        raise bad_request("messages must be a list")
    if fields.is_empty_list("messages"):
        raise bad_request("Cannot apply chat template to an empty conversation.")


def given_ids(transfer: dict[str, JsonValue] | None) -> GivenIds | None:
    """Ids that a prefill stage hands on, None without. Raises ApiError."""
    given = None if transfer is None else transfer.get("prompt_token_ids")
    if given is None:
        return None
    if not isinstance(given, list) or not given:
        raise bad_request("prompt_token_ids must be a list of ids, not empty", _GIVEN)
    ids = [each for each in given if type(each) is int and each >= 0]
    if len(ids) != len(given):
        raise bad_request("prompt_token_ids must be ids", _GIVEN)
    return ids


def _prompts(prompt: JsonValue, *, shape_only: bool = False) -> Sequence[str | GivenIds]:
    """`shape_only`: whatever vLLM's types allow passes. Raises ApiError."""
    if isinstance(prompt, str):
        return [prompt]
    assert isinstance(prompt, list)  # as read_rendering saw to it
    if not prompt:
        if shape_only:
            return []
        raise bad_request("You must pass at least one prompt")
    many = isinstance(prompt[0], list) or all(isinstance(each, str) for each in prompt)
    found: list[str | GivenIds] = []
    if not many:
        found.append(_integers(prompt))
    elif len(prompt) > MAX_PROMPTS:
        raise bad_request(f"at most {MAX_PROMPTS} prompts", "prompt")
    elif isinstance(prompt[0], list):
        for each in prompt:
            if not isinstance(each, list):
                raise malformed("prompts are all texts or all lists of ids", "body.prompt.0")
            found.append(_integers(each))
    else:
        found.extend(each for each in prompt if isinstance(each, str))
    if not shape_only and not all(found):
        raise bad_request("No token_ids rendered")
    return found


def _integers(values: list[JsonValue]) -> GivenIds:
    if set(map(type, values)) == {int} and min(values) >= 0:  # type: ignore[type-var, operator]  # integers
        return values  # type: ignore[return-value]
    ids = [integer(each) for each in values]
    known = [each for each in ids if each is not None and each >= 0]
    if len(known) != len(ids):
        place = next(place for place, each in enumerate(ids) if each is None or each < 0)
        raise malformed("a prompt is a text or a list of ids", f"body.prompt.{place}")
    return known
