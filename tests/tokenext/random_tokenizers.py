"""Tokenizers over a handful of characters, with added tokens that overlap in every way there is."""

import json
from typing import Any

from hypothesis import strategies as st

ALPHABET = "ab_ <|>\u0301A"
TEXTS = st.text(st.sampled_from(ALPHABET), max_size=24)

_NORMALIZERS = st.sampled_from(
    [
        None,
        {"type": "Sequence", "normalizers": []},
        {"type": "NFC"},
        {"type": "Lowercase"},
        {"type": "Strip", "strip_left": True, "strip_right": True},
        {"type": "Replace", "pattern": {"String": " "}, "content": "_"},
        {"type": "Sequence", "normalizers": [
            {"type": "Prepend", "prepend": "_"},
            {"type": "Replace", "pattern": {"String": " "}, "content": "_"},
        ]},
    ]
)  # fmt: skip


def _metaspace(scheme: str) -> dict[str, Any]:
    return {"type": "Metaspace", "replacement": "_", "prepend_scheme": scheme, "split": True}


_PRE_TOKENIZERS = st.sampled_from(
    [
        None,
        {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        {"type": "Whitespace"},
        {"type": "Digits", "individual_digits": True},
        {"type": "Split", "pattern": {"Regex": "a(?!b)|(?<=a)b"}, "behavior": "Isolated", "invert": False},
        {"type": "Sequence", "pretokenizers": [
            {"type": "Punctuation", "behavior": "Isolated"}, _metaspace("first")]},
        _metaspace("first"),
        _metaspace("always"),
        _metaspace("never"),
    ]
)  # fmt: skip


def _template(single: str) -> dict[str, Any]:
    pieces = [
        {"Sequence": {"id": "A", "type_id": 0}}
        if name == "A"
        else {"SpecialToken": {"id": name, "type_id": 0}}
        for name in single.split()
    ]
    special = {
        "X": {"id": "X", "ids": [900, 901], "tokens": ["X", "Y"]},
        "Z": {"id": "Z", "ids": [3], "tokens": ["Z"]},
    }
    return {"type": "TemplateProcessing", "single": pieces, "pair": pieces, "special_tokens": special}


_BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": False, "use_regex": True}
_POST_PROCESSORS = st.sampled_from(
    [
        None,
        _BYTE_LEVEL,
        _template("X A"),
        _template("X Z A Z Z"),
        _template("A X"),
        {"type": "Sequence", "processors": [_BYTE_LEVEL, _template("Z A X")]},
        {"type": "BertProcessing", "sep": ["Z", 3], "cls": ["X", 900]},
        {"type": "RobertaProcessing", "sep": ["Z", 3], "cls": ["X", 900], "trim_offsets": True,
         "add_prefix_space": True},
    ]
)  # fmt: skip


@st.composite
def _models(draw: st.DrawFn) -> dict[str, Any]:
    missing = draw(st.sampled_from(["", "b_"]))  # characters that only the unknown token stands for
    words = ["?", *(letter for letter in (*ALPHABET, *"ĠĢÌģ") if letter not in missing)]
    merges = []
    for _ in range(draw(st.integers(0, 8))):
        left, right = draw(st.sampled_from(words[1:])), draw(st.sampled_from(words[1:]))
        if left + right not in words:
            words.append(left + right)
            merges.append([left, right])
    return {
        "type": "BPE",
        "unk_token": "?",
        "fuse_unk": draw(st.booleans()),
        "ignore_merges": draw(st.booleans()),
        "vocab": {word: number for number, word in enumerate(words)},
        "merges": merges,
    }


_ADDED = st.lists(
    st.tuples(
        st.text(st.sampled_from(ALPHABET), min_size=1, max_size=4),
        st.booleans(),
        st.tuples(*[st.sampled_from([False, False, False, True])] * 4),
    ),
    min_size=1,
    max_size=5,
    unique_by=lambda each: each[0],
)


@st.composite
def tokenizers(draw: st.DrawFn) -> bytes:
    """A tokenizer.json."""
    model = draw(_models())
    vocab, added = model["vocab"], []
    following = len(vocab)
    for content, special, (lstrip, rstrip, single_word, normalized) in draw(_ADDED):
        number = vocab.get(content, following)
        following += content not in vocab  # as the reference counts, whatever the file says
        added.append(
            {
                "id": number,
                "content": content,
                "lstrip": lstrip,
                "rstrip": rstrip,
                "single_word": single_word,
                "normalized": normalized,
                "special": special,
            }
        )
    return json.dumps(
        {
            "version": "1.0",
            "added_tokens": added,
            "normalizer": draw(_NORMALIZERS),
            "pre_tokenizer": draw(_PRE_TOKENIZERS),
            "post_processor": draw(_POST_PROCESSORS),
            "decoder": None,
            "model": model,
        }
    ).encode()
