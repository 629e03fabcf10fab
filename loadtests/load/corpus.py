"""What users say: conversations from a file, or the ones of the repository."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

__all__ = ["Corpus", "CorpusError", "load", "own"]

_OWN: Final = Path(__file__).resolve().parents[1] / "stack" / "dialogue.txt"
# Of ShareGPT's records, and of OpenAI's, which people have in the same files.
_SPEAKERS: Final = {
    "human": "user", "user": "user", "gpt": "assistant", "chatgpt": "assistant", "assistant": "assistant",
}  # fmt: skip
MAX_BYTES: Final = 4 * 1024**3


class CorpusError(ValueError):
    """A corpus that cannot be used; the message names the file and the place in it."""


@dataclass(frozen=True, slots=True)
class Corpus:
    """`talks`: for each conversation what was said, in turns that begin with the user's. Never empty."""

    name: str
    talks: tuple[tuple[str, ...], ...]

    @property
    def texts(self) -> tuple[str, ...]:
        """All that anybody said."""
        return tuple(text for talk in self.talks for text in talk)


def own() -> Corpus:
    """The small corpus of this repository."""
    talks = []
    for block in _OWN.read_text(encoding="utf-8").split("\n\n"):
        said = tuple(line.partition(": ")[2] for line in block.splitlines() if ": " in line)
        if len(said) > 1:
            talks.append(said)
    return Corpus("own", tuple(talks))


def load(path: Path) -> Corpus:
    """Read a JSON file in the style of ShareGPT: a list of conversations.

    Each is `{"conversations": [{"from": "human", "value": "..."}, {"from": "gpt", ...}]}`. Conversations that
    do not begin with a user, or in which the same side speaks twice, are left out, as are those of one turn.
    Raises CorpusError.
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise CorpusError(f"{path}: larger than {MAX_BYTES >> 30} GiB")
        records = json.loads(path.read_bytes())
    except OSError as error:
        raise CorpusError(f"{path}: cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise CorpusError(f"{path}: is no JSON: {error}") from None
    if not isinstance(records, list):
        raise CorpusError(f"{path}: must be a list of conversations")
    talks = tuple(
        said for number, record in enumerate(records) if (said := _said(record, f"{path}: record {number}"))
    )
    if not talks:
        raise CorpusError(f"{path}: has no conversation in which a user and an assistant take turns")
    return Corpus(path.stem, talks)


def _said(record: Any, where: str) -> tuple[str, ...]:
    """What was said in turns; empty where nobody took turns. Raises CorpusError for another form."""
    turns = record.get("conversations") if isinstance(record, dict) else None
    if not isinstance(turns, list):
        raise CorpusError(f"{where}: has no list `conversations`")
    said: list[str] = []
    for number, turn in enumerate(turns):
        speaker, text = (turn.get("from"), turn.get("value")) if isinstance(turn, dict) else (None, None)
        if not isinstance(speaker, str) or not isinstance(text, str):
            raise CorpusError(f"{where}: turn {number} must have the texts `from` and `value`")
        role = _SPEAKERS.get(speaker)
        if role == ("user", "assistant")[len(said) % 2]:
            said.append(text)
        elif role is not None:
            return ()
    return tuple(said) if len(said) > 1 else ()
