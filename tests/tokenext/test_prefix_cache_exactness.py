"""Cached ids are the engine's own, for every tokenizer that may be cut: by construction, and tried here.

The long run over real tokenizers is `python -m tests.fuzz_prefix_cache`.
"""

from dataclasses import replace
from pathlib import Path

from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from extproc.token_metadata import TokenIds
from tests.fuzz_prefix_cache import fuzz
from tests.tokenext.random_tokenizers import TEXTS, tokenizers
from tokenext.cut_points import CutPoints, UncuttableError, analyse
from tokenext.engine import EngineError, EngineName, TokenizerEngine
from tokenext.engines.fast import FastEngine, UnsupportedTokenizerError
from tokenext.engines.huggingface import HuggingFaceEngine
from tokenext.prefix_cache import PrefixCache, check
from tokenext.prefix_tree import PrefixTree

OWN_MODEL = Path(__file__).parents[2] / "loadtests" / "stack" / "model" / "tokenizer.json"


def engines(content: bytes) -> list[TokenizerEngine]:
    try:
        return [HuggingFaceEngine(content), FastEngine(content)]
    except UnsupportedTokenizerError:
        return [HuggingFaceEngine(content)]


def cut_points(content: bytes) -> CutPoints | None:
    """None where nothing is promised, or where the reference itself falls over (Strip, empty tokens)."""
    try:
        points = analyse(content)
        check(HuggingFaceEngine(content), points)
    except UncuttableError:
        return None
    return points


def encoded(engine: TokenizerEngine, text: str, *, special: bool) -> TokenIds | None:
    try:
        return engine.encode(text, add_special_tokens=special)
    except EngineError:
        return None


STEPS = st.lists(
    st.tuples(st.integers(0, 5), st.lists(TEXTS, max_size=6), st.booleans()), min_size=2, max_size=6
)


@settings(max_examples=120, deadline=None, suppress_health_check=list(HealthCheck))
@given(tokenizers(), STEPS, st.integers(0, 8), st.randoms(use_true_random=False))
def test_texts_that_go_on_from_each_other_have_the_ids_of_the_whole(content, steps, ending, chance):
    """Over added tokens that overlap, every kind of step around the model, and cuts wherever they may be."""
    points = cut_points(content)
    assume(points is not None)
    assert points is not None
    added = [*HuggingFaceEngine(content).added_tokens, *(token.text for token in points.tokens)]
    points = replace(points, least=1, ending=ending)
    caches = [
        (engine, PrefixCache(engine, points, PrefixTree(1 << 20), tokenizer="t", shortest=0))
        for engine in engines(content)
    ]
    text = ""
    for kept, pieces, special in steps:
        text = text[: len(text) * kept // 5] + "".join(piece + chance.choice(added) for piece in pieces)
        for engine, cache in caches:
            assert encoded(cache, text, special=special) == encoded(engine, text, special=special)


def test_hostile_conversations_over_our_own_tokenizer():
    """Edited and branched conversations with eviction under way; a hundredth of the long run."""
    report = fuzz(
        OWN_MODEL.read_bytes(), conversations=200, seed=20_000, budget_bytes=200_000, wanted=EngineName.AUTO
    )
    assert report.differences == ()
    assert report.prompts > 600
    for seen in report.caches:
        assert seen.evictions > 100
        assert seen.tokens_reused > seen.tokens_encoded / 3
        assert min(seen.hits, seen.partial_hits, seen.misses) > 0


def test_hostile_conversations_over_the_reference_engine():
    report = fuzz(
        OWN_MODEL.read_bytes(), conversations=20, seed=7, budget_bytes=50_000, wanted=EngineName.HUGGINGFACE
    )
    assert report.engine == "huggingface"
    assert report.differences == ()
