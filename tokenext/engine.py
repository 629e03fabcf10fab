"""The seam to a tokenizer, and its fake."""

from enum import StrEnum
from typing import Final, Protocol

from extproc.token_metadata import TokenIds

__all__ = ["EngineError", "EngineName", "FakeEngine", "TokenizerEngine"]


class EngineName(StrEnum):
    """The catalog's `engine`; AUTO is the fastest that agrees with the reference."""

    AUTO = "auto"
    FASTOKENS = "fastokens"
    HUGGINGFACE = "huggingface"


class EngineError(Exception):
    """The engine could not encode a text. Carries none of it."""


class TokenizerEngine(Protocol):
    """Text to token ids. Implementations pass tests/tokenext/test_engine_contract.py."""

    @property
    def name(self) -> str:
        """A fixed word for logs and metrics."""
        ...

    @property
    def quick(self) -> bool:
        """Whether it takes no longer than some tens of nanoseconds for a byte of text."""
        ...

    def encode(self, text: str, *, add_special_tokens: bool, isolation: str = "") -> TokenIds:
        """All ids of `text`, never truncated or padded. Added tokens inside the text become their ids.

        `add_special_tokens` runs the tokenizer's post-processor (BOS and the like). `isolation` is a
        request's cache salt: what an engine keeps of a text helps only texts of the same isolation, so that
        nobody learns from the time it takes what others have sent. It never changes the ids. May be called
        from any thread at any time, and lets other threads run meanwhile. Raises EngineError.
        """
        ...


class FakeEngine:
    """One id per byte of UTF-8; 256 stands for the beginning of the text."""

    BEGINNING: Final = 256
    name: Final = "fake"
    quick: Final = False

    def encode(self, text: str, *, add_special_tokens: bool, isolation: str = "") -> TokenIds:
        del isolation  # nothing of a text is kept
        try:
            ids = list(text.encode())
        except UnicodeEncodeError:
            raise EngineError("the text is not Unicode") from None
        return TokenIds.pack([self.BEGINNING, *ids] if add_special_tokens else ids)
