"""The render API without HTTP: bodies in, answers out. Models, threads and limits are those of ext_proc."""

import asyncio
from collections.abc import Callable
from secrets import token_hex
from typing import Final

from extproc.token_metadata import TokenIds
from tokenext.attempt import Attempt
from tokenext.breaker import Breakers
from tokenext.catalog import Catalog, Model
from tokenext.declined import Declined, SkipReason
from tokenext.json_object import JsonObject, read
from tokenext.observer import Observer, Outcome
from tokenext.pool import TokenizationPool
from tokenext.render_api import answers
from tokenext.render_api.bodies import Rendering, detokenize_ids, read_rendering, read_tokenize
from tokenext.render_api.errors import bad_request, of_declined
from tokenext.tokenization import Clock, Stopwatch
from tokenext.turns import Remembered

__all__ = ["RenderApi"]

_PREFIXES: Final = {True: "chatcmpl-", False: "cmpl-"}
_RANDOM_BYTES: Final = 8


class RenderApi:
    """Every method raises ApiError, and reports each prompt to the observer as a request is."""

    def __init__(
        self,
        *,
        catalog: Callable[[], Catalog],
        pool: TokenizationPool,
        observer: Observer,
        clock: Clock,
        conversations: Remembered | None = None,
        breakers: Breakers | None = None,
    ) -> None:
        self._catalog = catalog
        self._pool = pool
        self._observer = observer
        self._clock = clock
        self._conversations = conversations
        self._breakers = breakers

    async def render(self, path: str, body: bytes, *, request_id: str | None) -> bytes:
        """The answer to /v1/.../render of the API `path`. `request_id` is X-Request-Id, None without one."""
        asked = read_rendering(path, body, only_model=self._only_model())
        model = self._model(asked.model)
        _check_max_tokens(asked, model)
        # One after the other: a list of a thousand prompts holds one place of the queue, as one prompt does.
        ids = [
            each if isinstance(each, TokenIds) else await self._tokenized(path, each)
            for each in asked.prompts
        ]
        name = _PREFIXES[asked.chat] + _request_id(request_id, asked)
        documents = [
            answers.generate_request(
                name if len(ids) == 1 else f"{name}-{number}",
                each,
                sampling_params=asked.sampling.params(chat=asked.chat, room=_room(each, model)),
                fields=asked.fields,
            )
            for number, each in enumerate(ids)
        ]
        return documents[0] if asked.chat else b"[" + b",".join(documents) + b"]"

    async def tokenize(self, body: bytes) -> bytes:
        path, prompt, name, wants_pieces = read_tokenize(body, only_model=self._only_model())
        model = self._model(name)
        # An empty prompt is no error here, as it is everywhere else.
        ids = await self._tokenized(path, read(prompt)) if prompt else TokenIds(b"")
        pieces = None
        if wants_pieces and model.vocabulary is not None:
            pieces = await asyncio.to_thread(model.vocabulary.pieces, ids.as_array().tolist())
        return answers.tokenized(ids, max_model_len=model.max_length, pieces=pieces)

    async def detokenize(self, body: bytes) -> bytes:
        ids, name = detokenize_ids(body)
        model = self._model(name if isinstance(name, str) and name else self._only_model())
        if model.vocabulary is None:
            raise bad_request("this server does not detokenize")
        return answers.detokenized(await asyncio.to_thread(model.vocabulary.text, ids))

    def models(self, *, created: int) -> bytes:
        return answers.models(self._catalog(), created=created)

    def _only_model(self) -> str:
        models = self._catalog().models
        return models[0].name if len(models) == 1 else ""

    def _model(self, name: str) -> Model:
        model = self._catalog().find(name)
        if model is None:
            raise of_declined(Declined(SkipReason.UNKNOWN_MODEL))
        return model

    async def _tokenized(self, path: str, body: JsonObject) -> TokenIds:
        attempt = Attempt(Stopwatch(self._clock), body)
        outcome, reason = Outcome.PASSED, ""
        try:
            tokenized = await attempt.tokenize(
                path,
                body.text,
                self._catalog(),
                self._pool,
                conversations=self._conversations,
                breakers=self._breakers,
            )
        except Declined as declined:
            reason = declined.reason.value
            raise of_declined(declined) from None
        except asyncio.CancelledError:
            reason = SkipReason.CANCELLED.value
            raise
        else:
            outcome, reason = Outcome.TOKENIZED, tokenized.record.reason
            return tokenized.record.token_ids
        finally:
            self._observer.exchanged(attempt.record(outcome, reason))


def _request_id(header: str | None, asked: Rendering) -> str:
    if header is not None:
        return header
    given = asked.fields.get("request_id")
    return given if isinstance(given, str) and given else token_hex(_RANDOM_BYTES)


def _check_max_tokens(asked: Rendering, model: Model) -> None:
    sampling, longest = asked.sampling, model.max_length
    name = (
        "max_completion_tokens" if asked.chat and sampling.max_completion_tokens is not None else "max_tokens"
    )
    most: int | None = getattr(sampling, name)
    keep = asked.fields.get("truncate_prompt_tokens")
    if longest is not None and isinstance(keep, int) and keep > longest:
        raise bad_request(f"truncate_prompt_tokens cannot be greater than the context of {longest} tokens")
    if longest is not None and most is not None and most > longest:
        raise bad_request(f"{name} cannot be greater than the context of {longest} tokens", name)


def _room(ids: TokenIds, model: Model) -> int | None:
    """What the context has left for the answer. Raises ApiError where the prompt is longer."""
    if model.max_length is None:
        return None
    if len(ids) > model.max_length:
        raise bad_request(
            f"This model's maximum context length is {model.max_length} tokens. "
            f"However, your prompt contains {len(ids)} input tokens.",
            "input_tokens",
        )
    return model.max_length - len(ids)
