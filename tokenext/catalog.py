"""The models that are tokenized, by every name a client may use."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from hashlib import sha256
from typing import Final

import orjson

from extproc.token_metadata import BlockHashes, TokenIds
from extproc.verdict import JsonValue
from tokenext.block_hashes import BlockHasher
from tokenext.engine import TokenizerEngine
from tokenext.handoff import Handoff
from tokenext.parity import Verification
from tokenext.profiles import InexactReason, Profile
from tokenext.vocabulary import Vocabulary

__all__ = ["EMPTY_CATALOG", "Catalog", "Model", "digest"]


@dataclass(frozen=True, slots=True)
class Model:
    """`digest` covers everything that decides the ids; `max_length` is in tokens, None for no limit.

    `prefix_cache` says in words whether the engine keeps what it has encoded, or why it does not.

    `doubt` is why none of its ids counts as the engine's own, for now or until it is bundled. `verification`
    says how the running engine is asked. `block_hasher` None: records have no block hashes.
    `vocabulary` None: nobody asks for the way back from ids to text. `max_model_len` is the context that
    clients of the HTTP API are told of and held to, None for no limit, `sampling_defaults` by fields' names
    what it samples by where they do not say.
    """

    name: str
    aliases: tuple[str, ...]
    digest: str
    engine: TokenizerEngine
    engine_reason: str
    profile: Profile
    handoff: Handoff
    strip_messages: bool = False
    loras: tuple[str, ...] = ()
    prefix_cache: str = "off"
    max_length: int | None = None
    doubt: InexactReason | None = None
    verification: Verification | None = None
    block_hasher: BlockHasher | None = None
    vocabulary: Vocabulary | None = None
    max_model_len: int | None = None
    sampling_defaults: Mapping[str, JsonValue] = field(default_factory=dict)

    def block_hashes(self, ids: TokenIds, *, name: str, cache_salt: str) -> BlockHashes | None:
        """Of a prompt for `name`, one of the model's; None where it has none, or they cannot be told."""
        if self.block_hasher is None:
            return None
        lora = name if name in self.loras else ""
        return self.block_hasher.hashes(ids, cache_salt=cache_salt, lora=lora)


class Catalog:
    """Immutable. A reload makes another one."""

    def __init__(self, models: Iterable[Model]) -> None:
        """Raises ValueError where one name stands for two models (settings.py reports it better)."""
        self.models: Final = tuple(models)
        self._by_name: dict[str, Model] = {}
        for model in self.models:
            for name in (model.name, *model.aliases, *model.loras):
                if self._by_name.setdefault(name, model) is not model:
                    raise ValueError(f"{name} names two models")

    def find(self, name: str) -> Model | None:
        """The model of a name, an alias or a LoRA adapter's name."""
        return self._by_name.get(name)

    def doubting(self, names: Collection[str]) -> "Catalog":
        """The same models; the parity of those with these first names is in doubt."""
        return Catalog(
            replace(model, doubt=InexactReason.PARITY) if model.name in names else model
            for model in self.models
        )


EMPTY_CATALOG: Final = Catalog(())


def digest(
    tokenizer_json: bytes,
    templates: Mapping[str, str],
    special_tokens: Mapping[str, str],
    template_kwargs: Mapping[str, JsonValue],
) -> str:
    """sha256 over all that decides a model's ids, as "sha256:" and 64 hex digits; key order is ignored."""
    parts = {
        "tokenizer": sha256(tokenizer_json).hexdigest(),
        "templates": dict(templates),
        "special_tokens": dict(special_tokens),
        "template_kwargs": dict(template_kwargs),
    }
    return f"sha256:{sha256(orjson.dumps(parts, option=orjson.OPT_SORT_KEYS)).hexdigest()}"
