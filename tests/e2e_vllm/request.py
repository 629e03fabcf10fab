"""A request of the run, as it is sent on both ways."""

from dataclasses import dataclass
from enum import Enum
from typing import Any

from tests.e2e_vllm.model import NAME
from tests.parity.corpus.json_text import Spelling, write

__all__ = ["Expected", "Request", "asking"]


class Expected(Enum):
    """What tokenext must do with a request."""

    HANDED = "handed over"  # exact ids, in the body too
    OWN_IDS = "the client's ids"  # exact ids, and nothing to hand over
    LEFT = "left to the engine"  # no ids in the body
    ANY = "anything that is true"


@dataclass(frozen=True, slots=True)
class Request:
    """`sent` is the body that goes through the chain, `past` the one that goes straight to vLLM.

    `echoes` is whether vLLM shows the prompt's ids on this path; where it does not, only counts are compared.
    """

    name: str
    kind: str
    path: str
    expected: Expected
    sent: str
    past: str
    echoes: bool = True


def asking(body: dict[str, Any]) -> str:
    """The body with its model, few tokens to answer (the prompt is what matters), and the echo of its ids."""
    return write({"model": NAME, "max_tokens": 2, "return_token_ids": True, **body}, Spelling())
