"""The implementation under measurement, behind the smallest seam that parity needs."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final, Protocol

from tests.parity.corpus.case import CHAT
from tokenext.catalog import Model
from tokenext.chat_template import ChatTemplates
from tokenext.declined import Declined
from tokenext.loading import load_catalog
from tokenext.model_files import read_model
from tokenext.openai import Api, parse, read_body
from tokenext.profiles import PlainProfile
from tokenext.settings import decode
from tokenext.tokenization import Stopwatch, tokenize

__all__ = ["Implementation", "Result", "tokenext_model"]


@dataclass(frozen=True, slots=True)
class Result:
    """`ids` is None where the request is left untokenized. `exact` promises that they are the engine's own."""

    ids: tuple[int, ...] | None
    exact: bool
    reason: str = ""


class Implementation(Protocol):
    def ids_for(self, body: str, path: str) -> Result:
        """What we make of a request. Never raises for what a client sent."""
        ...


class _Tokenext:
    """tokenext from the body to the record, as its exchange calls it; no hand-off."""

    def __init__(self, model: Model) -> None:
        self._model = model

    def ids_for(self, body: str, path: str) -> Result:
        try:
            read = read_body(body.encode())
            request = parse(Api.CHAT if path == CHAT else Api.COMPLETION, read)
            tokenized = tokenize(
                self._model, request, read, body_replaceable=False, watch=Stopwatch(time.perf_counter)
            )
        except Declined as declined:
            return Result(None, exact=False, reason=declined.reason.value)
        record = tokenized.record
        return Result(tuple(record.token_ids.as_array()), exact=record.engine_exact, reason=record.reason)


def tokenext_model(name: str, folder: Path, profile: str) -> Implementation:
    """A model directory as `tokenext serve` loads it, with the profile of an engine. Raises KeyError, SettingsError."""
    settings = f"listen: unix:/tmp/unused.sock\nmodels:\n  - {{name: {name}, source: {folder}}}\n"
    catalog = load_catalog(decode(settings.encode(), source="parity"), source="parity", now=datetime.now)
    model = catalog.find(name)
    assert model is not None
    return _Tokenext(_PROFILES[profile](model, folder))


def _as_loaded(model: Model, _: Path) -> Model:
    return model


def _plain(model: Model, folder: Path) -> Model:
    """Stands for transformers until tokenext has a profile of that name."""
    files = read_model(folder)
    templates = ChatTemplates(files.chat_templates, now=datetime.now)
    return Model(
        name=model.name,
        aliases=(),
        digest=model.digest,
        engine=model.engine,
        engine_reason=model.engine_reason,
        profile=PlainProfile(templates, files.special_tokens),
        handoff=model.handoff,
    )


_PROFILES: Final[Mapping] = {"dynamo": _as_loaded, "transformers": _plain}
