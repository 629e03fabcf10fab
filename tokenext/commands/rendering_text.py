"""A rendering as text, with colours where a terminal shows it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from tokenext.engines.pieces import Piece, PieceKind
from tokenext.loading import LoadedModel
from tokenext.rendering import Rendering

__all__ = ["Style", "as_text"]

# Select Graphic Rendition (ECMA-48, 8.3.117). Two grounds in turn show where one token ends.
_SPECIAL: Final = "1;35"
_ADDED: Final = "1;36"
_HEADING: Final = "1"
_CUT: Final = "33"
_GROUNDS: Final = ("48;5;236", "48;5;240")
_KEPT: Final = "\n\t"


@dataclass(frozen=True, slots=True)
class Style:
    coloured: bool

    def paint(self, text: str, codes: str) -> str:
        return f"\x1b[{codes}m{text}\x1b[0m" if self.coloured and text and codes else text


def as_text(loaded: LoadedModel, rendering: Rendering, style: Style) -> list[str]:
    """Lines: a summary, the prompt, a table of tokens."""
    model, record = loaded.model, rendering.record
    exact = "yes" if record.engine_exact else f"no, {record.reason}"
    special = sum(piece.kind is not PieceKind.PLAIN for piece in rendering.pieces)
    cuts = f"{len(rendering.cuts)} cut points" if not rendering.uncuttable else rendering.uncuttable
    facts = {
        "model": f"{model.name}, profile {model.profile.name}, hand-off {model.handoff}",
        "engine": f"{model.engine.name}: {model.engine_reason}",
        "digest": record.tokenizer_digest,
        "engine_exact": exact,
        "tokens": f"{len(record.token_ids)}, {special} of them added tokens; {cuts}",
    }
    lines = [f"{style.paint(f'{name:<13}', _HEADING)}{value}" for name, value in facts.items()]
    lines += ["", style.paint("prompt", _HEADING)]
    lines += [*_prompt(rendering, style).split("\n"), ""]
    return [
        *lines,
        style.paint(f"{'#':>6} {'id':>8} {'span':>13}  piece", _HEADING),
        *_rows(rendering, style),
    ]


def _prompt(rendering: Rendering, style: Style) -> str:
    text, parts, done = rendering.prompt, [], 0
    for number, piece in enumerate(rendering.pieces):
        if piece.end <= done:  # the rest of a character that is several tokens
            continue
        start = max(piece.start, done)
        parts.append(visible(text[done:start]))
        codes = ";".join(filter(None, (_GROUNDS[number % 2], _kind_codes(piece))))
        # A line end closes the colour, so that a terminal does not fill the rest of the line with it.
        shown = visible(text[start : piece.end]).split("\n")
        parts.append("\n".join(style.paint(line, codes) for line in shown))
        done = piece.end
    return "".join([*parts, visible(text[done:])])


def _rows(rendering: Rendering, style: Style) -> Iterator[str]:
    shared = _shared(rendering.pieces)
    cuts = set(rendering.cuts)
    for number, piece in enumerate(rendering.pieces):
        text = rendering.prompt[piece.start : piece.end]
        # Parts of one character have no text of their own, nor has what the post-processor puts there.
        own = text and number not in shared
        shown = f'"{visible(text, keep="")}"' if own else visible(piece.token)
        kind = "" if piece.kind is PieceKind.PLAIN else f"  {piece.kind}"
        cut = style.paint("  cut", _CUT) if kind and piece.end in cuts else ""
        span = f"{piece.start}:{piece.end}" if piece.end else "-"
        yield f"{number:>6} {piece.id:>8} {span:>13}  {style.paint(shown, _kind_codes(piece))}{kind}{cut}"


def _shared(pieces: Sequence[Piece]) -> set[int]:
    return {
        number + step
        for number, (one, other) in enumerate(pairwise(pieces))
        if (one.start, one.end) == (other.start, other.end)
        for step in (0, 1)
    }


def _kind_codes(piece: Piece) -> str:
    return {PieceKind.PLAIN: "", PieceKind.ADDED: _ADDED, PieceKind.SPECIAL: _SPECIAL}[piece.kind]


def visible(text: str, keep: str = _KEPT) -> str:
    """The text with everything escaped that a terminal would act upon, or not show; `keep` stays."""
    if text.isprintable():
        return text
    return "".join(
        char if char in keep or char.isprintable() else char.encode("unicode_escape").decode()
        for char in text
    )
