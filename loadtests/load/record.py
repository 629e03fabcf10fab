"""What a run leaves behind for reports: a folder with `record.json`, and samples in files beside it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import msgspec

from loadtests.bench.results import machine

__all__ = ["Record", "RecordError", "Round", "TargetRecord", "read", "write"]

FILE: Final = "record.json"


class RecordError(ValueError):
    """A folder that holds no run, or one that cannot be read; the message names the file."""


class Round(msgspec.Struct, frozen=True):
    """One turn of a target. `samples` is a file of the folder.

    `cpu_seconds`: spent meanwhile by each kind of process; empty where they are not ours to look at.
    """

    samples: str
    seconds: float
    cpu_seconds: Mapping[str, float] = {}


class TargetRecord(msgspec.Struct, frozen=True):
    """`says` tells a reader what it is. `memory_mb`: resident at the end, by kind of process."""

    name: str
    says: str
    rounds: tuple[Round, ...]
    memory_mb: Mapping[str, float] = {}


class Record(msgspec.Struct, frozen=True):
    """`parameters` are enough to repeat it on the same `machine`."""

    title: str
    machine: Mapping[str, Any]
    parameters: Mapping[str, Any]
    targets: tuple[TargetRecord, ...]


def write(folder: Path, title: str, parameters: Mapping[str, Any], targets: tuple[TargetRecord, ...]) -> None:
    record = Record(title, machine(), parameters, targets)
    text = msgspec.json.format(msgspec.json.encode(record), indent=1)
    (folder / FILE).write_bytes(text + b"\n")


def read(folder: Path) -> Record:
    """Raises RecordError."""
    path = folder / FILE
    try:
        return msgspec.json.decode(path.read_bytes(), type=Record)
    except OSError as error:
        raise RecordError(f"{path}: cannot be read: {error.strerror}") from None
    except msgspec.MsgspecError as error:
        raise RecordError(f"{path}: {error}") from None
