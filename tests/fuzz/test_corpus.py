"""What fuzzing began with, and what it found, is replayed: each input of the corpus keeps its promise."""

from pathlib import Path

import pytest

from tests.fuzz.targets import TARGETS

CORPUS = Path(__file__).with_name("corpus")
INPUTS = sorted(path for path in CORPUS.glob("*/*") if path.is_file())


def test_every_target_has_something_to_begin_with():
    assert {path.parent.name for path in INPUTS} == set(TARGETS)


@pytest.mark.parametrize("path", INPUTS, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_an_input_keeps_its_promise(path):
    TARGETS[path.parent.name](path.read_bytes())


@pytest.mark.parametrize("name", TARGETS)
@pytest.mark.parametrize("data", [b"", b"\x00", b"\xff" * 40, b"{}", b"[" * 2_000], ids=repr)
def test_the_simplest_hostile_bytes_break_nothing(name, data):
    TARGETS[name](data)
