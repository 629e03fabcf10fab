"""Which piece of a text each token id stands for, for people to look at; slow, by the reference engine."""

from dataclasses import dataclass
from enum import StrEnum

from tokenizers import Tokenizer

from tokenext.engine import EngineError
from tokenext.engines.panic import is_library_failure

__all__ = ["Piece", "PieceKind", "pieces"]


class PieceKind(StrEnum):
    PLAIN = "plain"
    ADDED = "added"  # one id wherever its text stands
    SPECIAL = "special"  # so too, and left out where ids are decoded for people


@dataclass(frozen=True, slots=True)
class Piece:
    """text[start:end], in characters; both are 0 for what the post-processor puts there.

    Pieces of one character that is several tokens share its span. `token` is the vocabulary's spelling.
    """

    id: int
    token: str
    start: int
    end: int
    kind: PieceKind


def pieces(tokenizer_json: bytes, text: str, *, add_special_tokens: bool) -> tuple[Piece, ...]:
    """The pieces of a text in order. Raises EngineError."""
    try:
        tokenizer = Tokenizer.from_buffer(tokenizer_json)
        tokenizer.no_truncation()
        tokenizer.no_padding()
        encoding = tokenizer.encode(text, add_special_tokens=add_special_tokens)
        added = tokenizer.get_added_tokens_decoder()
    except BaseException as error:
        if not is_library_failure(error):
            raise
        raise EngineError("tokenizers failed on a text") from None

    def kind(number: int) -> PieceKind:
        if number not in added:
            return PieceKind.PLAIN
        return PieceKind.SPECIAL if added[number].special else PieceKind.ADDED

    return tuple(
        Piece(number, token, start, end, kind(number))
        for number, token, (start, end) in zip(encoding.ids, encoding.tokens, encoding.offsets, strict=True)
    )
