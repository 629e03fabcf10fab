import json
from pathlib import Path

import pytest

from extproc.token_metadata import TokenIds
from tokenext.engine import EngineError, EngineName, FakeEngine
from tokenext.engines import choice, panic
from tokenext.engines.choice import UnusableEngineError, choose, first_mismatch
from tokenext.engines.fast import FastEngine
from tokenext.engines.huggingface import HuggingFaceEngine, TokenizerFileError


def read(model_dir: Path) -> bytes:
    return (model_dir / "tokenizer.json").read_bytes()


def unsupported(model_dir: Path) -> bytes:
    """A tokenizer that Hugging Face takes and fastokens does not."""
    model = {"type": "WordLevel", "vocab": {"a": 0, "[UNK]": 1}, "unk_token": "[UNK]"}
    return json.dumps({**json.loads(read(model_dir)), "model": model}).encode()


class Stubborn(FakeEngine):
    """Differs from the fake on one text, by its ids or by failing."""

    def __init__(self, text: str, *, fails: bool = False) -> None:
        self._text = text
        self._fails = fails

    def encode(self, text: str, *, add_special_tokens: bool, isolation: str = "") -> TokenIds:
        if text == self._text:
            if self._fails:
                raise EngineError("no")
            return TokenIds.pack([1])
        return super().encode(text, add_special_tokens=add_special_tokens)


def test_fastokens_serves_where_it_agrees(model_dir):
    chosen = choose(read(model_dir), EngineName.AUTO)
    assert isinstance(chosen.engine, FastEngine)
    assert "agrees" in chosen.reason


def test_the_reference_serves_what_fastokens_does_not_take_and_says_why(model_dir):
    chosen = choose(unsupported(model_dir), EngineName.AUTO)
    assert isinstance(chosen.engine, HuggingFaceEngine)
    assert chosen.reason.startswith("fastokens does not take this tokenizer: ")


def test_the_reference_serves_where_fastokens_differs_and_says_where(model_dir, monkeypatch):
    monkeypatch.setattr(choice, "first_mismatch", lambda *_: 7)
    chosen = choose(read(model_dir), EngineName.AUTO)
    assert isinstance(chosen.engine, HuggingFaceEngine)
    assert chosen.reason == "fastokens differs from the reference on probe 7"


def test_the_catalog_may_insist_on_an_engine(model_dir):
    assert choose(read(model_dir), EngineName.HUGGINGFACE).engine.name == "huggingface"
    assert choose(read(model_dir), EngineName.FASTOKENS).engine.name == "fastokens"


def test_insisting_on_fastokens_where_it_cannot_serve_is_an_error(model_dir):
    with pytest.raises(UnusableEngineError, match="does not take"):
        choose(unsupported(model_dir), EngineName.FASTOKENS)


@pytest.mark.parametrize("name", EngineName)
def test_a_file_that_no_engine_takes_is_an_error(name):
    with pytest.raises(TokenizerFileError):
        choose(b"{}", name)


def test_equal_engines_have_no_mismatch():
    assert first_mismatch(FakeEngine(), FakeEngine(), ("<x>",)) is None


@pytest.mark.parametrize("fails", [False, True])
def test_the_first_text_with_other_ids_is_found(fails):
    assert first_mismatch(FakeEngine(), Stubborn("Hello, world!", fails=fails), ()) == 2


def test_added_tokens_are_probed_too():
    assert first_mismatch(FakeEngine(), Stubborn("<x> <y>"), ("<x>", "<y>")) is not None


def test_the_real_engines_agree_on_every_probe(begin_model_dir):
    reference = HuggingFaceEngine(read(begin_model_dir))
    assert first_mismatch(reference, FastEngine(read(begin_model_dir)), reference.added_tokens) is None


def test_a_panic_is_the_librarys_failure_and_an_interrupt_is_not():
    panic_type = type("PanicException", (BaseException,), {"__module__": "pyo3_runtime"})
    assert panic.is_library_failure(panic_type())
    assert panic.is_library_failure(ValueError())
    assert not panic.is_library_failure(KeyboardInterrupt())
    assert not panic.is_library_failure(SystemExit())
