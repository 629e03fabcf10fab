"""The render API without HTTP: bodies in, answers out. Models, threads and limits are those of ext_proc."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from secrets import token_hex
from typing import Final, TypeVar

from extproc.token_metadata import BlockHashes, TokenIds
from tokenext.callout import Callout, Prompt
from tokenext.catalog import Catalog, Model
from tokenext.declined import Declined, SkipReason
from tokenext.pool import TokenizationPool
from tokenext.render_api import answers
from tokenext.render_api.bodies import CHAT, GivenIds, PromptBody, Rendering, read_rendering
from tokenext.render_api.errors import bad_request, of_declined
from tokenext.render_api.hashes import with_hashes
from tokenext.render_api.tokenize_bodies import detokenize_ids, read_tokenizing
from tokenext.turns import Remembered

__all__ = ["Asked", "RenderApi"]

T = TypeVar("T")

_PREFIXES: Final = {True: "chatcmpl-", False: "cmpl-"}
_RANDOM_BYTES: Final = 8


@dataclass(frozen=True, slots=True)
class Asked:
    """What a request says beside its body. `request_id` is X-Request-Id, None without one; `traceparent` from
    `trace_parent`; `block_hashes`: they are wanted in the answer.
    """

    request_id: str | None = None
    traceparent: str = ""
    block_hashes: bool = False


@dataclass(frozen=True, slots=True)
class _Tokens:
    ids: TokenIds | GivenIds
    json: bytes
    blocks: BlockHashes | None


class RenderApi:
    """Every method raises ApiError. Prompts are answered, and reported, by the Tokenization RPC's callout."""

    def __init__(
        self,
        *,
        catalog: Callable[[], Catalog],
        pool: TokenizationPool,
        callout: Callout,
        conversations: Remembered | None = None,
    ) -> None:
        """`conversations` are the callout's own."""
        self._conversations = conversations
        self._catalog = catalog
        self._pool = pool
        self._callout = callout

    async def render(self, path: str, body: bytes, beside: Asked) -> bytes:
        """The answer to /v1/.../render of the API `path`."""
        asked = read_rendering(path, body, self._conversations)
        model = self._model(asked.model)
        asked.check(model.max_model_len)
        named = asked.model or model.name
        salt = asked.fields.text("cache_salt")
        # One after the other: a list of a thousand prompts holds one place of the queue, as one prompt does.
        found = [
            await self._tokens(model, path, each, beside, named=named, salt=salt)
            for each in asked.prompts(named, model.max_model_len)
        ]
        sampling = asked.sampling.with_defaults(model.sampling_defaults, chat=asked.chat)
        name = _PREFIXES[asked.chat] + _request_id(beside.request_id, asked)
        documents = [
            answers.generate_request(
                name if len(found) == 1 else f"{name}-{number}",
                each.json,
                asked=asked,
                sampling_params=sampling.params(chat=asked.chat, room=_room(each.ids, model)),
            )
            for number, each in enumerate(found)
        ]
        if beside.block_hashes:
            documents = list(map(with_hashes, documents, (each.blocks for each in found)))
        return documents[0] if asked.chat else b"[" + b",".join(documents) + b"]"

    async def tokenize(self, body: bytes, beside: Asked) -> bytes:
        asked = read_tokenizing(body, self._conversations)
        model = self._model(asked.model)
        named = asked.model or model.name
        path, prompt = asked.prompt(named)
        # An empty prompt is no error here, as it is everywhere else.
        found = await self._tokens(
            model, path, prompt, beside, named=named, salt=asked.fields.text("cache_salt")
        )
        pieces = None
        if asked.wants_pieces and model.vocabulary is not None:
            listed = found.ids if isinstance(found.ids, list) else found.ids.as_array().tolist()
            pieces = await self._on_a_thread(partial(model.vocabulary.pieces, listed))
        document = answers.tokenized(
            found.json, count=len(found.ids), max_model_len=model.max_model_len, pieces=pieces
        )
        return with_hashes(document, found.blocks) if beside.block_hashes else document

    async def detokenize(self, body: bytes) -> bytes:
        ids, name = detokenize_ids(body)
        model = self._model(name)
        if model.vocabulary is None:
            raise bad_request("this server does not detokenize")
        return answers.detokenized(await self._on_a_thread(partial(model.vocabulary.text, ids)))

    def models(self, *, created: int) -> bytes:
        return answers.models(self._catalog(), created=created)

    def _model(self, name: str) -> Model:
        """Whom a request means; without a name the only one there is. Raises ApiError."""
        catalog = self._catalog()
        if not name and len(catalog.models) == 1:
            return catalog.models[0]
        model = catalog.find(name)
        if model is None:
            raise of_declined(SkipReason.UNKNOWN_MODEL)
        return model

    async def _tokens(
        self,
        model: Model,
        path: str,
        prompt: PromptBody | GivenIds,
        beside: Asked,
        *,
        named: str,
        salt: str,
    ) -> _Tokens:
        """`named` is what the client calls the model, `salt` the request's cache_salt."""
        if not isinstance(prompt, list):
            asked = Prompt(
                path,
                prompt.text,
                split=prompt,
                traceparent=beside.traceparent,
                block_hashes=beside.block_hashes,
            )
            answer = await self._callout.tokenized(asked, ids_json=True)
            if isinstance(answer, SkipReason):
                raise of_declined(answer)
            record = answer.record
            return _Tokens(record.token_ids, answer.ids_json or b"[]", record.block_hashes)
        if path == CHAT and model.vocabulary is not None:
            size = await self._on_a_thread(model.vocabulary.size)
            if max(prompt) >= size:
                raise bad_request("an id is out of vocabulary", "kv_transfer_params.prompt_token_ids")
        # A client's own ids may be of any size: vLLM's engine refuses them later.
        told = json.dumps(prompt, separators=(",", ":")).encode()
        if not beside.block_hashes or model.block_hasher is None:
            return _Tokens(prompt, told, None)
        return _Tokens(prompt, told, await self._on_a_thread(partial(_hashed, model, prompt, named, salt)))

    async def _on_a_thread(self, job: Callable[[], T]) -> T:
        """What blocks has its place in the queue, and its deadline, as tokenizing has."""
        try:
            return await self._pool.run(job)
        except Declined as declined:
            raise of_declined(declined.reason) from None


def _hashed(model: Model, ids: GivenIds, named: str, salt: str) -> BlockHashes | None:
    try:
        return model.block_hashes(TokenIds.pack(ids), name=named, cache_salt=salt)
    except OverflowError:  # an id that no engine takes
        return None


def _request_id(header: str | None, asked: Rendering) -> str:
    if header is not None:
        return header
    return asked.typed.request_id if "request_id" in asked.fields else token_hex(_RANDOM_BYTES)


def _room(ids: TokenIds | GivenIds, model: Model) -> int | None:
    """What the context has left for the answer. Raises ApiError where the prompt is longer."""
    if model.max_model_len is None:
        return None
    if len(ids) > model.max_model_len:
        raise bad_request(
            f"This model's maximum context length is {model.max_model_len} tokens. "
            f"However, your prompt contains {len(ids)} input tokens.",
            "input_tokens",
        )
    return model.max_model_len - len(ids)
