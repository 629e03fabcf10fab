"""A tokenizer engine that does not encode again what it has encoded before: for conversations.

The ids are those of the engine inside, bit for bit: a text is divided only behind tokens after which its ids
do not depend on what was before (cut_points.py), and what is taken for known is compared with the text itself
(prefix_tree.py). Where a tokenizer has no such tokens there is no cache.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import sha256
from typing import Final

from extproc.token_metadata import BYTES_PER_ID, TokenIds
from tokenext.cut_points import CutPoints, CutToken, UncuttableError, analyse
from tokenext.engine import EngineError, TokenizerEngine
from tokenext.prefix_tree import Growth, PrefixTree

__all__ = ["SHORTEST", "Caching", "PrefixCache", "check", "with_prefix_cache"]


# Measured: fastokens encodes 2,000 characters of a chat in the time that looking them up takes.
SHORTEST: Final = 2048


class _UnexpectedIdsError(Exception):
    """The engine does not see a cut token where one stands."""


class PrefixCache:
    """Passes tests/tokenext/test_engine_contract.py for whatever engine is inside."""

    def __init__(
        self,
        engine: TokenizerEngine,
        cut_points: CutPoints,
        tree: PrefixTree,
        *,
        tokenizer: str,
        shortest: int = SHORTEST,
    ) -> None:
        """`tokenizer` names the tokenizer: engines with the same name share what is known in `tree`.

        Texts of less than `shortest` characters go straight to the engine.

        One tree for all models of a process, so that one number bounds its memory, a busy model may take what
        idle ones leave, and a reload forgets nothing.
        """
        self._engine: Final = engine
        self._cut_points: Final = cut_points
        self._tree: Final = tree
        self._tokenizer: Final = tokenizer
        self._shortest: Final = shortest

    @property
    def name(self) -> str:
        return self._engine.name

    @property
    def quick(self) -> bool:
        return self._engine.quick

    def encode(self, text: str, *, add_special_tokens: bool, isolation: str = "") -> TokenIds:
        """As every engine; texts of one `isolation` never help, or time, those of another."""
        if len(text) < self._shortest:
            return self._engine.encode(text, add_special_tokens=add_special_tokens)
        try:
            parts = self._parts(text, isolation)
        except _UnexpectedIdsError:
            return self._engine.encode(text, add_special_tokens=add_special_tokens)
        if add_special_tokens:
            # What is kept knows nothing of special tokens around it, so both kinds of requests share it.
            parts = [self._cut_points.opening.packed, *parts, self._cut_points.closing.packed]
        return TokenIds(b"".join(parts))

    def _parts(self, text: str, isolation: str) -> list[bytes]:
        # A client's word is as long as it likes.
        salt = sha256(isolation.encode(errors="surrogatepass")).digest() if isolation else b""
        scope = (self._tokenizer, salt)
        known = self._tree.find(scope, text, self._cut_points)
        end, token = known.end, known.token
        new: list[bytes] = []
        fork_ids = None
        if known.fork is not None:
            fork_ids = self._ids(text[end : known.fork.end], token, known.fork.token)
            new.append(fork_ids)
            end, token = known.fork
        growth = None
        last = self._cut_points.choose(text, end)
        if last is not None:
            segment = text[end : last.end]
            ids = self._ids(segment, token, last.token)
            new.append(ids)
            # Text that is not ASCII keeps its UTF-8 once an engine has asked for it, so keep a text that none
            # has seen.
            kept = segment if segment.isascii() or token is not None else text[end : last.end]
            growth = Growth(kept, ids, last.token)
            end, token = last
        if end < len(text):
            new.append(self._ids(text[end:], token, None))
        encoded = sum(map(len, new)) // BYTES_PER_ID
        self._tree.learn(scope, known, fork_ids=fork_ids, growth=growth, encoded=encoded)
        return [*known.parts, *new]

    def _ids(self, segment: str, after: CutToken | None, last: CutToken | None) -> bytes:
        """The ids of a part of a text that stands behind `after` and ends with `last`.

        Without `after` it is the text's beginning, without `last` its end.
        """
        text = segment if after is None else after.text + segment
        ids = self._engine.encode(text, add_special_tokens=False).packed
        # Never seen with a tokenizer that was analysed; it costs next to nothing.
        if last is not None and not ids.endswith(last.ids.packed):
            raise _UnexpectedIdsError
        if after is None:
            return ids
        if not ids.startswith(after.ids.packed):
            raise _UnexpectedIdsError
        return ids[len(after.ids.packed) :]


@dataclass(frozen=True, slots=True)
class Caching:
    """`state` says in words whether there is a cache, and why not."""

    engine: TokenizerEngine
    state: str


def with_prefix_cache(
    engine: TokenizerEngine, tokenizer_json: bytes, tree: PrefixTree | None, *, likely: Iterable[str]
) -> Caching:
    """The engine with a cache in front, where there is a tree and the tokenizer can be cut.

    `likely` are texts that name the tokens in use, such as chat templates.
    """
    if tree is None:
        return Caching(engine, "off: it has no budget")
    try:
        cut_points = analyse(tokenizer_json, likely=likely)
        check(engine, cut_points)
    except UncuttableError as error:
        return Caching(engine, f"off: {error}")
    tokenizer = f"{engine.name} {sha256(tokenizer_json).hexdigest()}"
    cache = PrefixCache(engine, cut_points, tree, tokenizer=tokenizer)
    return Caching(cache, f"on: cuts behind {len(cut_points.tokens)} added tokens")


# What stands around a cut: nothing, words, spaces, a mark that composes with what is before it.
_LEFT: Final = ("", "a", "word ", "\n", "e\u0301", " <", "漢")
_RIGHT: Final = ("", "b", " word", "\n\n", "\u0338 b", "> x", "\u3000字")


def check(engine: TokenizerEngine, cut_points: CutPoints) -> None:
    """Try the engine where the proof is about the reference. Raises UncuttableError."""
    try:
        agrees = all(_divides(engine, token) for token in cut_points.tokens)
        agrees = agrees and all(
            engine.encode(text, add_special_tokens=True).packed
            == cut_points.opening.packed
            + engine.encode(text, add_special_tokens=False).packed
            + cut_points.closing.packed
            for text in ("", *_LEFT, cut_points.tokens[0].text)
        )
    except EngineError:
        agrees = False
    if not agrees:
        raise UncuttableError("its engine gives other ids for a text in parts than for the whole")


def _divides(engine: TokenizerEngine, token: CutToken) -> bool:
    def ids(text: str) -> bytes:
        return engine.encode(text, add_special_tokens=False).packed

    behind = [(right, ids(token.text + right)) for right in _RIGHT]
    if not all(packed.startswith(token.ids.packed) for _, packed in behind):
        return False
    for left in _LEFT:
        head = ids(left + token.text)
        if not head.endswith(token.ids.packed):
            return False
        for right, packed in behind:
            if ids(left + token.text + right) != head + packed[len(token.ids.packed) :]:
                return False
    return True
