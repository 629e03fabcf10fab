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
from tokenext.json_object import JsonObject
from tokenext.observer import Observer, Outcome
from tokenext.pool import TokenizationPool
from tokenext.render_api import answers
from tokenext.render_api.bodies import CHAT, GivenIds, PromptBody, Rendering, read_rendering
from tokenext.render_api.errors import bad_request, of_declined
from tokenext.render_api.tokenize_bodies import detokenize_ids, read_tokenizing
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
        asked = read_rendering(path, body)
        model = self._model(asked.model)
        asked.check(model.max_length)
        # One after the other: a list of a thousand prompts holds one place of the queue, as one prompt does.
        ids = [await self._ids(model, path, each) for each in asked.prompts(model.name, model.max_length)]
        name = _PREFIXES[asked.chat] + _request_id(request_id, asked)
        documents = [
            answers.generate_request(
                name if len(ids) == 1 else f"{name}-{number}",
                each,
                asked=asked,
                sampling_params=asked.sampling.params(chat=asked.chat, room=_room(each, model)),
            )
            for number, each in enumerate(ids)
        ]
        return documents[0] if asked.chat else b"[" + b",".join(documents) + b"]"

    async def tokenize(self, body: bytes) -> bytes:
        asked = read_tokenizing(body)
        model = self._model(asked.model)
        path, prompt = asked.prompt(model.name)
        # An empty prompt is no error here, as it is everywhere else.
        ids = await self._ids(model, path, prompt)
        pieces = None
        if asked.wants_pieces and model.vocabulary is not None:
            listed = ids.as_array().tolist() if isinstance(ids, TokenIds) else ids
            pieces = await asyncio.to_thread(model.vocabulary.pieces, listed)
        return answers.tokenized(ids, max_model_len=model.max_length, pieces=pieces)

    async def detokenize(self, body: bytes) -> bytes:
        ids, name = detokenize_ids(body)
        model = self._model(name)
        if model.vocabulary is None:
            raise bad_request("this server does not detokenize")
        return answers.detokenized(await asyncio.to_thread(model.vocabulary.text, ids))

    def models(self, *, created: int) -> bytes:
        return answers.models(self._catalog(), created=created)

    def _model(self, name: str) -> Model:
        """Whom a request means; without a name the only one there is. Raises ApiError."""
        catalog = self._catalog()
        if not name and len(catalog.models) == 1:
            return catalog.models[0]
        model = catalog.find(name)
        if model is None:
            raise of_declined(Declined(SkipReason.UNKNOWN_MODEL))
        return model

    async def _ids(self, model: Model, path: str, prompt: PromptBody | GivenIds) -> answers.Ids:
        if not isinstance(prompt, list):
            return await self._tokenized(path, prompt)
        if path == CHAT and model.vocabulary is not None:
            size = await asyncio.to_thread(model.vocabulary.size)
            if max(prompt) >= size:
                raise bad_request("an id is out of vocabulary", "kv_transfer_params.prompt_token_ids")
        return prompt

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
    return asked.typed.request_id if "request_id" in asked.fields else token_hex(_RANDOM_BYTES)


def _room(ids: answers.Ids, model: Model) -> int | None:
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
