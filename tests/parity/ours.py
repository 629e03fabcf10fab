"""The implementation under measurement, behind the smallest seam that parity needs."""

import time
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Protocol

from tests.parity.corpus.case import CHAT
from tokenext.catalog import Model
from tokenext.declined import Declined
from tokenext.loading import load_model
from tokenext.openai import Api, parse, read_body
from tokenext.profiles import ProfileName
from tokenext.settings import ModelSettings
from tokenext.tokenization import Stopwatch, tokenize

__all__ = ["Implementation", "Result", "tokenext_model"]


@dataclass(frozen=True, slots=True)
class Result:
    """`ids` is None where the request is left untokenized. `exact` promises that they are the engine's.

    `crash` is what tokenext raised where it may raise nothing: a fault of ours, whatever the engine says.
    """

    ids: tuple[int, ...] | None
    exact: bool
    reason: str = ""
    crash: str = ""


class Implementation(Protocol):
    def ids_for(self, body: str, path: str) -> Result:
        """What we make of a request. Never raises: what should not happen is told as `crash`."""
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
        except Exception as error:  # noqa: BLE001  # whatever it is, the run goes on and tells
            return Result(None, exact=False, reason="crash", crash=f"{type(error).__name__}: {error}"[:200])
        record = tokenized.record
        return Result(tuple(record.token_ids.as_array()), exact=record.engine_exact, reason=record.reason)


def tokenext_model(name: str, folder: Path, profile: str, *, trusted: bool = False) -> Implementation:
    """A model directory as `tokenext serve` loads it, with an engine's profile. Raises SettingsError."""
    settings = ModelSettings(
        name=name, source=str(folder), profile=ProfileName(profile), trusted_template=trusted
    )
    return _Tokenext(load_model(settings, "model", source="parity", now=datetime.now).model)
