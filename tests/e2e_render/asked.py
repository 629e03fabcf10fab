"""A request of the run, and what a server said to it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from tests.parity.corpus.json_text import Spelling, write

__all__ = ["CHAT", "COMPLETION", "DETOKENIZE", "JSON_HEADERS", "NAME", "TOKENIZE", "Asked", "Reply", "asking"]

NAME: Final = "tiny-qwen3"
CHAT: Final = "/v1/chat/completions/render"
COMPLETION: Final = "/v1/completions/render"
TOKENIZE: Final = "/tokenize"
DETOKENIZE: Final = "/detokenize"
JSON_HEADERS: Final[Mapping[str, str]] = {"content-type": "application/json"}


@dataclass(frozen=True, slots=True)
class Asked:
    """`kind` is the family it belongs to; `body` None sends none."""

    name: str
    kind: str
    path: str
    body: bytes | None
    headers: Mapping[str, str] = field(default_factory=lambda: JSON_HEADERS)
    method: str = "POST"


@dataclass(frozen=True, slots=True)
class Reply:
    """`value` is the body as JSON, or as text where it is none. `headers` are those that are compared."""

    status: int
    value: Any
    headers: Mapping[str, str] = field(default_factory=dict)


def asking(kind: str, name: str, path: str, body: Mapping[str, Any], **headers: str) -> Asked:
    """Of the run's model, unless the body says another."""
    text = write({"model": NAME, **body}, Spelling()).encode("utf-8", "surrogatepass")
    return Asked(name, kind, path, text, {**JSON_HEADERS, **headers})
