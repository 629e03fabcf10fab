"""Which piece of a text each token id stands for, for people to look at; slow, by the reference engine."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from tokenizers import Tokenizer

from tokenext.engine import EngineError
from tokenext.engines.panic import is_library_failure

__all__ = ["Piece", "PieceKind", "pieces", "unplaced"]


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
    tokenizer = _load(tokenizer_json)
    try:
        encoding = tokenizer.encode(text, add_special_tokens=add_special_tokens)
    except BaseException as error:
        if not is_library_failure(error):
            raise
        raise EngineError("tokenizers failed on a text") from None
    kinds = _kinds(tokenizer)
    return tuple(
        Piece(number, token, start, end, kinds.get(number, PieceKind.PLAIN))
        for number, token, (start, end) in zip(encoding.ids, encoding.tokens, encoding.offsets, strict=True)
    )


def unplaced(tokenizer_json: bytes, ids: Sequence[int]) -> tuple[Piece, ...]:
    """Pieces for ids that have no place in a text; an id out of the vocabulary has an empty `token`."""
    tokenizer = _load(tokenizer_json)
    kinds = _kinds(tokenizer)
    return tuple(
        Piece(number, tokenizer.id_to_token(number) or "", 0, 0, kinds.get(number, PieceKind.PLAIN))
        for number in ids
    )


def _load(tokenizer_json: bytes) -> Tokenizer:
    tokenizer = Tokenizer.from_buffer(tokenizer_json)  # an engine has loaded the same bytes
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def _kinds(tokenizer: Tokenizer) -> dict[int, PieceKind]:
    added = tokenizer.get_added_tokens_decoder()
    return {
        number: PieceKind.SPECIAL if token.special else PieceKind.ADDED for number, token in added.items()
    }
