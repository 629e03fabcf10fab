import json
from typing import Any

import pytest

from extproc.token_metadata import TokenIds
from tokenext.cut_points import CutPoints, CutToken, UncuttableError, analyse


def added(content: str, number: int = 100, **flags: Any) -> dict[str, Any]:
    plain = {"lstrip": False, "rstrip": False, "single_word": False, "normalized": False, "special": True}
    return {"id": number, "content": content, **plain, **flags}


def tokenizer(*tokens: dict[str, Any], **parts: Any) -> bytes:
    """A tokenizer.json with these added tokens; ids are made different unless they were given."""
    numbered = [{**token, "id": token["id"] + (token["id"] == 100) * at} for at, token in enumerate(tokens)]
    model = {"type": "BPE", "vocab": {"a": 0}, "merges": []}
    return json.dumps({"added_tokens": numbered, "model": model, **parts}).encode()


def cuts(*tokens: dict[str, Any], **parts: Any) -> list[str]:
    """The texts that may be cut behind; empty where there are none."""
    try:
        return [token.text for token in analyse(tokenizer(*tokens, **parts)).tokens]
    except UncuttableError as error:
        if str(error) != "none of its added tokens is a safe place to cut":
            raise
        return []


def refused(*tokens: dict[str, Any], **parts: Any) -> str:
    with pytest.raises(UncuttableError) as caught:
        analyse(tokenizer(*tokens, **parts))
    return str(caught.value)


END = added("<end>")
NFC = {"type": "NFC"}


def test_a_plain_added_token_is_a_place_to_cut():
    points = analyse(tokenizer(END))
    assert points.tokens == (CutToken("<end>", TokenIds.pack([100])),)
    assert (points.opening, points.closing) == (TokenIds(b""), TokenIds(b""))


@pytest.mark.parametrize("flag", ["lstrip", "rstrip", "single_word"])
def test_a_token_that_minds_its_neighbours_is_none(flag):
    assert cuts(added("<end>", **{flag: True})) == []


@pytest.mark.parametrize("content", [" <end>", "<end>\n", " ", "\u3000x", ""])
def test_a_token_with_spaces_at_its_edges_is_none(content):
    assert cuts(added(content)) == []


def test_a_flag_that_is_missing_is_taken_for_the_unsafe_one():
    assert cuts({"id": 100, "content": "<end>"}) == []


@pytest.mark.parametrize("normalizer", [None, {"type": "Sequence", "normalizers": []}])
def test_a_normalized_token_is_one_where_the_normalizer_does_nothing(normalizer):
    assert cuts(added("<end>", normalized=True), normalizer=normalizer) == ["<end>"]


@pytest.mark.parametrize(
    "normalizer", [NFC, {"type": "Sequence", "normalizers": [NFC]}, {"type": "Sequence"}]
)
def test_a_normalized_token_is_none_where_the_normalizer_may_change_it(normalizer):
    assert cuts(added("<end>", normalized=True), normalizer=normalizer) == []
    assert cuts(END, normalizer=normalizer) == ["<end>"]


def test_a_token_within_another_one_is_none():
    assert cuts(END, added("<end><end>")) == []
    assert cuts(END, added("x<end>")) == ["x<end>"]
    assert cuts(END, added("<end>x")) == []  # the longer one would do, but this rule is the simpler


def test_a_token_whose_beginning_ends_another_one_is_none():
    """In "x<end>" the token "x<" is found first, and the "<" is gone."""
    assert cuts(END, added("x<")) == ["x<"]
    assert cuts(END, added("x<en")) == ["x<en"]


def test_a_token_whose_beginning_is_its_own_end_is_none():
    """In "|a|a|" it stands twice, and only the first is found."""
    assert cuts(added("|a|")) == []


def test_whoever_disturbs_need_not_be_safe_itself():
    assert cuts(END, added("x<", lstrip=True, single_word=True, normalized=True, special=False)) == []


def test_tokens_that_begin_alike_are_both_places_to_cut():
    assert cuts(added("<|a|>"), added("<|b|>")) == ["<|a|>", "<|b|>"]


def test_a_token_that_holds_a_shorter_one_is_one_because_it_is_the_longest_there():
    assert cuts(added("<|a|>"), added("a")) == ["<|a|>"]


@pytest.mark.parametrize("taker", ["<e", "nd", "end>", "d>!"])
def test_a_normalized_token_of_which_the_earlier_search_takes_a_part_is_none(taker):
    tokens = added("<end>", normalized=True), added(taker)
    assert "<end>" not in cuts(*tokens)


def test_two_tokens_of_one_text_or_one_id_are_none():
    assert cuts(added("<end>", 7), added("<end>", 8)) == []
    assert cuts(added("<end>", 7), added("<fin>", 7)) == []


def test_only_tokens_in_use_are_taken_where_any_are_named():
    points = analyse(
        tokenizer(END, added("<fin>"), added("<bad> ")), likely=["{{ x }}<fin>{{ y }}", "<bad> "]
    )
    assert [token.text for token in points.tokens] == ["<fin>"]
    everything = analyse(tokenizer(END, added("<fin>")), likely=["no token of it"])
    assert [token.text for token in everything.tokens] == ["<end>", "<fin>"]


def test_of_thousands_of_tokens_some_are_taken():
    many = [added(f"<unused{number}>", number + 1000) for number in range(3000)]
    assert len(analyse(tokenizer(*many)).tokens) == 32


def test_random_ids_are_not_cut():
    model = {"type": "BPE", "vocab": {}, "merges": [], "dropout": 0.1}
    assert refused(END, model=model) == "its model has dropout, so that its ids are random"
    assert cuts(END, model={**model, "dropout": 0.0}) == ["<end>"]


UNKNOWN_FORM = "its tokenizer.json has a form that is not known here"


@pytest.mark.parametrize(
    ("parts", "reason"),
    [
        ({"model": {"type": "Oracle"}}, "its model is of a type that is not known here"),
        ({"model": {}}, "its model is of a type that is not known here"),
        ({"model": []}, UNKNOWN_FORM),
        ({"pre_tokenizer": {"type": "Mood"}}, "its pre-tokenizer is of a type that is not known here"),
        (
            {"pre_tokenizer": {"type": "Sequence", "pretokenizers": [{"type": "Digits"}, {"type": "Mood"}]}},
            "its pre-tokenizer is of a type that is not known here",
        ),
        ({"pre_tokenizer": {"type": "Sequence", "pretokenizers": "Digits"}}, UNKNOWN_FORM),
        ({"post_processor": {"type": "Mood"}}, "its post-processor has a form that is not known here"),
    ],
)
def test_what_is_not_known_is_not_cut(parts, reason):
    assert refused(END, **parts) == reason


@pytest.mark.parametrize(
    "content", [b"", b"[]", b"\xff", b"{}", b'{"model": {"type": "BPE"}, "added_tokens": 3}']
)
def test_what_is_no_tokenizer_is_not_cut(content):
    with pytest.raises(UncuttableError, match=UNKNOWN_FORM):
        analyse(content)


def template(*pieces: dict[str, Any], **special: list[int]) -> dict[str, Any]:
    return {
        "type": "TemplateProcessing",
        "single": list(pieces),
        "special_tokens": {name: {"id": name, "ids": ids} for name, ids in special.items()},
    }


TEXT = {"Sequence": {"id": "A", "type_id": 0}}
BOS, EOS = ({"SpecialToken": {"id": name, "type_id": 0}} for name in ("bos", "eos"))
BYTE_LEVEL = {"type": "ByteLevel"}
CLS_SEP = {"cls": ["[CLS]", 1], "sep": ["[SEP]", 2]}


@pytest.mark.parametrize(
    ("processor", "opening", "closing"),
    [
        (None, [], []),
        (BYTE_LEVEL, [], []),
        (template(BOS, TEXT, bos=[1]), [1], []),
        (template(TEXT, EOS, eos=[2]), [], [2]),
        (template(BOS, EOS, TEXT, EOS, BOS, bos=[1, 9], eos=[2]), [1, 9, 2], [2, 1, 9]),
        ({"type": "Sequence", "processors": [BYTE_LEVEL, template(BOS, TEXT, bos=[1])]}, [1], []),
        ({"type": "BertProcessing", **CLS_SEP}, [1], [2]),
        ({"type": "RobertaProcessing", **CLS_SEP}, [1], [2]),
    ],
)
def test_special_tokens_around_a_text_are_read_from_the_post_processor(processor, opening, closing):
    points = analyse(tokenizer(END, post_processor=processor))
    assert points.opening == TokenIds.pack(opening)
    assert points.closing == TokenIds.pack(closing)


@pytest.mark.parametrize(
    "processor",
    [
        template(BOS, bos=[1]),
        template(TEXT, TEXT),
        template(TEXT, {"Sequence": {"id": "B", "type_id": 1}}),
        template(BOS, TEXT),
        template(BOS, TEXT, bos=[-1]),
        {"type": "TemplateProcessing"},
        {"type": "BertProcessing"},
        {
            "type": "Sequence",
            "processors": [template(BOS, TEXT, bos=[1]), {"type": "BertProcessing", **CLS_SEP}],
        },
        {"type": "Sequence"},
    ],
)
def test_a_post_processor_of_another_form_is_not_cut(processor):
    assert "form that is not known" in refused(
        END, post_processor=processor
    ) or "more than one step" in refused(END, post_processor=processor)


POINTS = CutPoints((CutToken("<s>", TokenIds.pack([1])), CutToken("</turn>", TokenIds.pack([2]))))


def test_there_are_no_cut_points_without_tokens():
    with pytest.raises(ValueError, match="no tokens"):
        CutPoints(())


def test_the_last_cut_is_found_between_two_places():
    text = "ab<s>cd</turn>ef<s>gh"
    assert POINTS.last(text, 0, len(text)) == (19, POINTS.tokens[0])
    assert POINTS.last(text, 0, 18) == (14, POINTS.tokens[1])
    assert POINTS.last(text, 2, 5) == (5, POINTS.tokens[0])
    assert POINTS.last(text, 3, 13) is None
    assert POINTS.last("", 0, 0) is None


@pytest.mark.parametrize("behind", range(2030, 2070))
def test_a_token_is_found_wherever_a_search_window_begins(behind):
    text = "x" * 3000 + "</turn>" + "x" * (behind - 7)
    cut = POINTS.last(text, 0, len(text))
    assert cut is not None
    assert cut.end == 3007
    assert POINTS.last(text, 0, len(text) - 1) == cut


def test_the_search_for_a_cut_is_bounded():
    text = "<s>" + "x" * 200_000
    assert POINTS.last(text, 0, len(text)) is None
    assert POINTS.choose(text, 0) is None


def chosen(text: str, known: int = 0) -> int | None:
    cut = POINTS.choose(text, known)
    return None if cut is None else cut.end


def test_a_prompt_is_kept_up_to_the_first_cut_of_its_ending():
    history = "x" * 1000 + "</turn>"
    assert chosen(history + "<s>assistant<s>thoughts<s>") == 1007


def test_a_prompt_with_a_long_ending_is_kept_up_to_the_last_cut():
    text = "x" * 300 + "</turn>" + "y" * 300 + "<s>" + "z" * 5000
    assert chosen(text) == 610


def test_a_cut_that_stands_across_the_edge_of_the_ending_is_seen():
    assert chosen("x" * 1000 + "</turn>" + "y" * 252) == 1007


def test_less_than_the_least_is_not_kept():
    text = "x" * 1000 + "<s>"
    assert chosen(text, 747) == 1003
    assert chosen(text, 748) is None
    assert chosen("<s>" * 3) is None
