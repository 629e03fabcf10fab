"""Where a text may be cut so that its parts have the ids of the whole: after certain added tokens.

The rule, from the reference (Hugging Face tokenizers 0.23.3, tokenizer/added_vocabulary.rs and mod.rs):

1. Added tokens that are not normalized are searched for in the raw text, leftmost first, longest among those
   that begin together, and the search goes on behind each match.
2. Each piece between two matches is normalized on its own, and searched for the normalized added tokens.
3. Each piece that is left is pre-tokenized and given to the model on its own. The post-processor then puts
   special tokens around all ids.

So a token S is a place to cut if wherever its text occurs it is also matched: then the ids up to and
including S depend on the text up to there, and the rest on nothing before S. That holds when

- S takes no spaces from its neighbours (lstrip, rstrip), does not look at them (single_word), and begins and
  ends with something that no neighbour takes;
- S is searched for in the raw text: not normalized, or with a normalizer that does nothing;
- no match begins before S and ends inside it: no added token, S itself included, ends with a proper prefix
  of S;
- no longer match begins with S, and none spans it: no other added token contains S;
- if S is normalized, no token of the earlier search can take a part of it.

What follows S is encoded behind a copy of S, whose id is then dropped. So "the first piece" (Metaspace with
prepend_scheme "first") and "the character before" (single_word) are the same for a part as for the whole.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Final, NamedTuple

import msgspec

from extproc.token_metadata import TokenIds

__all__ = ["Cut", "CutPoints", "CutToken", "UncuttableError", "analyse"]

_LOOK_BACK: Final = 65_536  # characters; bounds the search in a text without cut points
_WINDOW: Final = 256  # characters; the first step of that search
_MAX_TOKENS: Final = 32  # bounds the pattern; some tokenizers reserve thousands of tokens

_MODELS: Final = frozenset({"BPE", "WordPiece", "WordLevel", "Unigram"})
_PRE_TOKENIZERS: Final = frozenset(
    {
        *(
            "BertPreTokenizer",
            "ByteLevel",
            "CharDelimiterSplit",
            "Metaspace",
            "Whitespace",
            "WhitespaceSplit",
        ),
        *("Split", "Punctuation", "Digits", "UnicodeScripts", "FixedLength"),
    }
)
_EMPTY: Final = TokenIds(b"")


class UncuttableError(ValueError):
    """No place is proved to be safe in this tokenizer; the message says why."""


@dataclass(frozen=True, slots=True)
class CutToken:
    text: str
    ids: TokenIds  # one id, for every real tokenizer


class Cut(NamedTuple):
    """A place in a text, right behind `token`."""

    end: int
    token: CutToken


@dataclass(frozen=True, slots=True)
class CutPoints:
    """The tokens to cut behind, and the ids that the post-processor puts around a text's own.

    Less than `least` characters are encoded again sooner than they are kept. `ending` is how many characters
    at the end of a text are taken for what the next turn changes (see `choose`).
    """

    tokens: tuple[CutToken, ...]
    opening: TokenIds = _EMPTY
    closing: TokenIds = _EMPTY
    least: int = 256
    ending: int = 256
    _pattern: re.Pattern[str] = field(init=False, repr=False, compare=False)
    _by_text: dict[str, CutToken] = field(init=False, repr=False, compare=False)
    _longest: int = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not self.tokens:
            raise ValueError("no tokens to cut behind")
        texts = {token.text: token for token in self.tokens}
        object.__setattr__(self, "_by_text", texts)
        object.__setattr__(self, "_pattern", re.compile("|".join(map(re.escape, texts))))
        object.__setattr__(self, "_longest", max(map(len, texts)))

    def choose(self, text: str, known: int) -> Cut | None:
        """The cut to keep `text` up to, at least `least` characters behind `known`; None where there is none.

        It is the first one in the ending of the text, else the last before it. The ending of a prompt is what
        its template changes when the next turn is there (an empty <think> block, say), so a cut before it
        outlives one behind it, and the ending is quickly encoded again.
        """
        ending = max(known, len(text) - self.ending)
        least = known + self.least
        match = self._pattern.search(text, ending)
        while match is not None and match.end() < least:
            match = self._pattern.search(text, match.end())
        if match is not None:
            return Cut(match.end(), self._by_text[match[0]])
        cut = self.last(text, known, ending + self._longest - 1)
        return cut if cut is not None and cut.end >= least else None

    def last(self, text: str, low: int, high: int) -> Cut | None:
        """The last cut whose token lies within text[low:high]; None where none is near `high`."""
        high = min(high, len(text))
        low = max(low, high - _LOOK_BACK)
        width, until = _WINDOW, high
        while until > low:
            start = max(low, until - width)
            # Windows overlap, so that a token on an edge is whole in one of them.
            found = None
            for match in self._pattern.finditer(text, start, min(high, until + self._longest - 1)):
                found = match
            if found is not None:
                return Cut(found.end(), self._by_text[found[0]])
            until, width = start, width * 4
        return None


class _AddedToken(msgspec.Struct, frozen=True):
    id: int
    content: str
    # A flag that is missing is taken for the unsafe one.
    single_word: bool = True
    lstrip: bool = True
    rstrip: bool = True
    normalized: bool = True


class _Model(msgspec.Struct, frozen=True):
    type: str = ""
    dropout: float | None = None


class _Tokenizer(msgspec.Struct, frozen=True):
    """What decides here; vocabulary and merges are passed over, so that they cost no memory."""

    model: _Model
    added_tokens: tuple[_AddedToken, ...] = ()
    normalizer: dict[str, Any] | None = None
    pre_tokenizer: dict[str, Any] | None = None
    post_processor: dict[str, Any] | None = None


def analyse(tokenizer_json: bytes, *, likely: Iterable[str] = ()) -> CutPoints:
    """The cut points of a tokenizer.json. Raises UncuttableError.

    `likely` are texts that name the tokens in use (chat templates, special tokens): where they name any, only
    those become cut points.
    """
    try:
        tokenizer = msgspec.json.decode(tokenizer_json, type=_Tokenizer)
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise UncuttableError("its tokenizer.json has a form that is not known here") from None
    _check_model(tokenizer.model)
    _check_pre_tokenizer(tokenizer.pre_tokenizer)
    opening, closing = _specials(tokenizer.post_processor)
    named = "\n".join(likely)
    added, raw = tokenizer.added_tokens, _does_nothing(tokenizer.normalizer)
    in_use = [token for token in added if token.content in named]
    safe = list(islice(_safe_tokens(in_use, added, raw=raw), _MAX_TOKENS))
    safe = safe or list(islice(_safe_tokens(added, added, raw=raw), _MAX_TOKENS))
    if not safe:
        raise UncuttableError("none of its added tokens is a safe place to cut")
    tokens = tuple(CutToken(token.content, TokenIds.pack([token.id])) for token in safe)
    return CutPoints(tokens, opening=opening, closing=closing)


def _check_model(model: _Model) -> None:
    if model.type not in _MODELS:
        raise UncuttableError("its model is of a type that is not known here")
    if model.dropout:
        raise UncuttableError("its model has dropout, so that its ids are random")


def _check_pre_tokenizer(pre_tokenizer: dict[str, Any] | None) -> None:
    if pre_tokenizer is None:
        return
    kind = pre_tokenizer.get("type")
    if kind == "Sequence":
        for inner in _objects(pre_tokenizer.get("pretokenizers")):
            _check_pre_tokenizer(inner)
    elif kind not in _PRE_TOKENIZERS:
        raise UncuttableError("its pre-tokenizer is of a type that is not known here")


def _does_nothing(normalizer: dict[str, Any] | None) -> bool:
    if normalizer is None:
        return True
    inner = normalizer.get("normalizers")
    return normalizer.get("type") == "Sequence" and isinstance(inner, list) and all(map(_does_nothing, inner))


def _objects(value: object) -> list[dict[str, Any]]:
    if isinstance(value, list) and all(isinstance(item, dict) for item in value):
        return value
    raise UncuttableError("its tokenizer.json has a form that is not known here")


def _specials(processor: dict[str, Any] | None) -> tuple[TokenIds, TokenIds]:
    """What is put before and behind a text's ids where special tokens are wanted."""
    if processor is None:
        return _EMPTY, _EMPTY
    steps = _objects(processor.get("processors")) if processor.get("type") == "Sequence" else [processor]
    adding = [step for step in steps if step.get("type") != "ByteLevel"]  # that one changes offsets only
    if not adding:
        return _EMPTY, _EMPTY
    if len(adding) > 1:
        raise UncuttableError("its post-processor adds special tokens in more than one step")
    try:
        return _ADDING[adding[0]["type"]](adding[0])
    except (KeyError, IndexError, TypeError, ValueError, OverflowError):
        raise UncuttableError("its post-processor has a form that is not known here") from None


def _template(step: dict[str, Any]) -> tuple[TokenIds, TokenIds]:
    around: tuple[list[int], ...] = ([],)
    for piece in step["single"]:
        ((kind, what),) = piece.items()
        if kind == "SpecialToken":
            around[-1].extend(step["special_tokens"][what["id"]]["ids"])
        elif kind == "Sequence" and what["id"] == "A":
            around = (*around, [])
        else:
            raise ValueError
    opening, closing = around
    return TokenIds.pack(opening), TokenIds.pack(closing)


def _pair(step: dict[str, Any]) -> tuple[TokenIds, TokenIds]:
    return TokenIds.pack([step["cls"][1]]), TokenIds.pack([step["sep"][1]])


_ADDING: Final = {"TemplateProcessing": _template, "BertProcessing": _pair, "RobertaProcessing": _pair}


def _safe_tokens(
    candidates: Iterable[_AddedToken], added: Sequence[_AddedToken], *, raw: bool
) -> Iterator[_AddedToken]:
    """The candidates that fulfil the rule above. `raw`: the normalizer does nothing."""
    contents = Counter(token.content for token in added)
    numbers = Counter(token.id for token in added)
    for token in candidates:
        if (
            _keeps_to_itself(token)
            and (raw or not token.normalized)
            # The reference passes one of two over, and whose flags hold is a matter of their order.
            and contents[token.content] == numbers[token.id] == 1
            and not _is_disturbed(token, added)
        ):
            yield token


def _keeps_to_itself(token: _AddedToken) -> bool:
    text = token.content
    flags = token.lstrip or token.rstrip or token.single_word
    return not flags and bool(text) and not text[0].isspace() and not text[-1].isspace()


def _is_disturbed(token: _AddedToken, added: Sequence[_AddedToken]) -> bool:
    """Whether any token can be matched where a part of the text of `token` stands."""
    text = token.content
    beginnings = tuple(text[:length] for length in range(1, len(text)))
    endings = tuple(text[start:] for start in range(1, len(text)))
    for other in added:
        taker = other.content  # an empty one is never searched for, and passes every test here
        if taker.endswith(beginnings):
            return True
        if other is not token and text in taker:
            return True
        earlier_search = token.normalized and not other.normalized
        if taker and earlier_search and (taker in text or taker.startswith(endings)):
            return True
    return False
