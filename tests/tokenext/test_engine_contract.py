"""What every TokenizerEngine promises."""

import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from extproc.token_metadata import TokenIds
from tokenext.cut_points import CutPoints, CutToken, analyse
from tokenext.engine import EngineError, FakeEngine, TokenizerEngine
from tokenext.engines.fast import FastEngine, UnsupportedTokenizerError
from tokenext.engines.huggingface import HuggingFaceEngine, TokenizerFileError
from tokenext.prefix_cache import PrefixCache
from tokenext.prefix_tree import PrefixTree

ENGINES = ("fake", "huggingface", "fastokens")
CACHED = tuple(f"cached {name}" for name in ENGINES)
TEXTS = (
    "",
    "Hello, world!",
    "  a\n\tb ",
    "<|im_start|>user\nhi<|im_end|>",
    "naïve 漢字 😀",
    "a\0b",
    "x" * 5000,
)


def engine_of(name: str, model_dir: Path) -> TokenizerEngine:
    content = (model_dir / "tokenizer.json").read_bytes()
    if name in CACHED:
        return cached(engine_of(name.removeprefix("cached "), model_dir), content)
    return (
        FakeEngine()
        if name == "fake"
        else {"huggingface": HuggingFaceEngine, "fastokens": FastEngine}[name](content)
    )


def cached(engine: TokenizerEngine, content: bytes) -> TokenizerEngine:
    """The engine in a prefix cache that keeps the shortest texts too."""
    points = analyse(content)
    if isinstance(engine, FakeEngine):
        tokens = (
            CutToken(each.text, engine.encode(each.text, add_special_tokens=False)) for each in points.tokens
        )
        points = CutPoints(tuple(tokens), opening=TokenIds.pack([FakeEngine.BEGINNING]))
    return PrefixCache(
        engine, replace(points, least=1), PrefixTree(1 << 20), tokenizer="contract", shortest=0
    )


@pytest.fixture(params=(*ENGINES, *CACHED))
def engine(request: pytest.FixtureRequest, begin_model_dir: Path) -> TokenizerEngine:
    """Each engine, on a tokenizer that begins a text with a special token."""
    return engine_of(request.param, begin_model_dir)


def test_it_has_a_name(engine):
    assert engine.name in ENGINES


def test_no_text_has_no_ids(engine):
    assert engine.encode("", add_special_tokens=False) == TokenIds(b"")


@pytest.mark.parametrize("text", TEXTS)
def test_the_same_text_has_the_same_ids(engine, text):
    once = engine.encode(text, add_special_tokens=False)
    assert engine.encode(text, add_special_tokens=False) == once
    assert isinstance(once.packed, bytes)
    assert len(once.packed) == 4 * len(once)


@pytest.mark.parametrize("text", TEXTS)
def test_special_tokens_are_put_around_the_ids_of_the_text(engine, text):
    bare = engine.encode(text, add_special_tokens=False)
    whole = engine.encode(text, add_special_tokens=True)
    assert len(whole) == len(bare) + 1
    assert whole.packed.endswith(bare.packed)


@pytest.mark.parametrize("text", TEXTS)
def test_isolation_does_not_change_the_ids(engine, text):
    for special in (True, False):
        plain = engine.encode(text, add_special_tokens=special)
        assert engine.encode(text, add_special_tokens=special, isolation="salt") == plain


def test_different_texts_have_different_ids(engine):
    assert len({engine.encode(text, add_special_tokens=False) for text in TEXTS}) == len(TEXTS)


def test_a_long_text_is_encoded_whole(engine):
    text = "a b\n" * 50_000
    ids = engine.encode(text, add_special_tokens=False)
    half = engine.encode(text[: len(text) // 2], add_special_tokens=False)
    assert len(ids) == 2 * len(half)


def test_text_that_is_no_unicode_is_an_engine_error(engine):
    with pytest.raises(EngineError) as caught:
        engine.encode("secret \ud800", add_special_tokens=False)
    assert "secret" not in str(caught.value)


def test_threads_at_once_get_what_one_thread_gets(engine):
    texts = [f"text {number} " * (50 + number) for number in range(8)]
    expected = [engine.encode(text, add_special_tokens=False) for text in texts]
    right: list[bool] = []

    def work(mine: int) -> None:
        right.extend(
            engine.encode(texts[mine], add_special_tokens=False) == expected[mine] for _ in range(20)
        )

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert right == [True] * 160


def test_other_threads_go_on_while_a_long_text_is_encoded(engine):
    """By their progress: an engine that keeps the GIL leaves them 3% of it, ours half or more."""
    text = "The quick brown fox, 42 times; jumps over <|im_end|> lazy dogs.\n" * 16_000  # 1 MB

    def progress(busy: bool) -> float:
        """Ticks of another thread per second."""
        ticks = 0
        stop = threading.Event()

        def tick() -> None:
            nonlocal ticks
            while not stop.is_set():
                ticks += 1

        ticker = threading.Thread(target=tick)
        started = time.perf_counter()
        ticker.start()
        while (passed := time.perf_counter() - started) < 0.15:
            if busy:
                engine.encode(text, add_special_tokens=False)
            else:
                time.sleep(0.01)
        counted = ticks
        stop.set()
        ticker.join()
        return counted / passed

    # Taken in turns, so that whatever else the machine does weighs on both.
    rounds = [(progress(busy=False), progress(busy=True)) for _ in range(4)]
    assert sum(busy for _, busy in rounds) > 0.12 * sum(idle for idle, _ in rounds)


@pytest.mark.parametrize("name", ["huggingface", "fastokens"])
def test_settings_of_training_do_not_cut_or_pad(name, model_dir, truncating_model_dir):
    text = "a longer text than eight tokens, in any case"
    expected = engine_of(name, model_dir).encode(text, add_special_tokens=False)
    assert len(expected) > 8
    assert engine_of(name, truncating_model_dir).encode(text, add_special_tokens=False) == expected
    assert len(engine_of(name, truncating_model_dir).encode("a", add_special_tokens=False)) == 1


@pytest.mark.parametrize(
    "content", [b"", b"{}", b"[]", b"no json", b'{"model": {"type": "Unheard"}}', b"\xff\xfe"]
)
def test_a_broken_tokenizer_file_is_refused_at_load(content):
    with pytest.raises(TokenizerFileError):
        HuggingFaceEngine(content)
    with pytest.raises(UnsupportedTokenizerError):
        FastEngine(content)


def test_added_tokens_are_told_in_the_order_of_their_ids(model_dir):
    engine = HuggingFaceEngine((model_dir / "tokenizer.json").read_bytes())
    assert engine.added_tokens[:3] == ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
    assert engine.added_tokens[3:] == ("<tool_call>", "</tool_call>")
