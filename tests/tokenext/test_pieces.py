from pathlib import Path

import pytest

from tokenext.engines.huggingface import HuggingFaceEngine
from tokenext.engines.pieces import PieceKind, pieces, unplaced


@pytest.fixture
def tokenizer_json(begin_model_dir: Path) -> bytes:
    return (begin_model_dir / "tokenizer.json").read_bytes()


@pytest.mark.parametrize("special", [False, True])
@pytest.mark.parametrize("text", ["", "hi", "Zürich 😀<|im_end|><tool_call> x"])
def test_pieces_are_the_engines_ids(tokenizer_json, text, special):
    expected = HuggingFaceEngine(tokenizer_json).encode(text, add_special_tokens=special)
    found = pieces(tokenizer_json, text, add_special_tokens=special)
    assert [piece.id for piece in found] == expected.as_array().tolist()


def test_pieces_know_their_place_and_kind(tokenizer_json):
    found = pieces(tokenizer_json, "a<|im_end|><tool_call>", add_special_tokens=True)
    assert [(piece.token, piece.start, piece.end, piece.kind) for piece in found] == [
        ("<|endoftext|>", 0, 0, PieceKind.SPECIAL),
        ("a", 0, 1, PieceKind.PLAIN),
        ("<|im_end|>", 1, 11, PieceKind.SPECIAL),
        ("<tool_call>", 11, 22, PieceKind.ADDED),
    ]


def test_ids_without_a_text_have_their_spelling_only(tokenizer_json):
    special, unknown = unplaced(tokenizer_json, [0, 99_999])
    assert (special.token, special.end, special.kind) == ("<|endoftext|>", 0, PieceKind.SPECIAL)
    assert (unknown.id, unknown.token) == (99_999, "")
