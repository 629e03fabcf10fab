"""The seam to the way back, from ids to text, and its fake. Only the HTTP API needs it."""

from collections.abc import Sequence
from typing import Protocol

__all__ = ["FakeVocabulary", "Vocabulary"]


class Vocabulary(Protocol):
    def size(self) -> int:
        """One more than the largest id, added tokens included. Blocks, as `text` does."""
        ...

    def text(self, ids: Sequence[int]) -> str:
        """The text of these ids, special tokens included; ids that there are not are passed over.

        Blocks, for half a second where it is the first call.
        """
        ...

    def pieces(self, ids: Sequence[int]) -> list[str]:
        """Each id as it stands in the vocabulary. Blocks, likewise."""
        ...


class FakeVocabulary:
    """The way back of FakeEngine: one byte for each id."""

    def size(self) -> int:
        return 257

    def text(self, ids: Sequence[int]) -> str:
        return bytes(each for each in ids if each < 256).decode("utf-8", "replace")  # noqa: PLR2004

    def pieces(self, ids: Sequence[int]) -> list[str]:
        return [chr(each) if each < 256 else "<s>" for each in ids]  # noqa: PLR2004
