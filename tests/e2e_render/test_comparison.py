"""The comparison finds what it is there to find: a run that cannot fail would prove nothing."""

from collections import Counter

import pytest

from tests.e2e_render.asked import CHAT, COMPLETION, TOKENIZE, Reply, asking
from tests.e2e_render.comparison import Difference, differences
from tests.e2e_render.corpus import corpus
from tests.e2e_render.known import KNOWN, known
from tests.e2e_render.report import REQUIRED, Run, compare

ASKED = asking("plain", "a chat", CHAT, {"messages": [{"role": "user", "content": "x"}]})


@pytest.fixture(scope="module")
def requests():
    return corpus(1, 20)


def answer(**fields):
    return {"request_id": "chatcmpl-0123456789abcdef", "token_ids": [1, 2], "sampling_params": {}, **fields}


def fields_of(theirs, ours, asked=ASKED):
    return [each.field for each in differences(asked, theirs, ours)]


def test_random_ids_and_absent_defaults_are_no_differences():
    theirs = answer(sampling_params={"temperature": 1.0, "stop": [], "n": 1})
    ours = answer(request_id="chatcmpl-fedcba9876543210")
    assert fields_of(Reply(200, theirs), Reply(200, ours)) == []


@pytest.mark.parametrize(
    ("changed", "field"),
    [
        ({"token_ids": [1, 3]}, "token_ids"),
        ({"token_ids": [1]}, "token_ids"),
        ({"request_id": "cmpl-0123456789abcdef"}, "request_id"),
        ({"request_id": "chatcmpl-mine"}, "request_id"),
        ({"sampling_params": {"max_tokens": 15}}, "sampling_params.max_tokens"),
        ({"sampling_params": {"ignore_eos": 1}}, "sampling_params.ignore_eos"),
        ({"more": None}, "more"),
    ],
)
def test_every_other_difference_of_an_answer_is_found(changed, field):
    assert fields_of(Reply(200, answer()), Reply(200, answer(**changed))) == [field]


def test_one_answer_of_several_with_other_ids_is_found_and_a_missing_one_too():
    asked = asking("completion", "two", COMPLETION, {"prompt": ["a", "b"]})
    two = [answer(), answer(token_ids=[3])]
    assert fields_of(Reply(200, two), Reply(200, [answer(), answer(token_ids=[4])]), asked) == ["token_ids"]
    assert fields_of(Reply(200, two), Reply(200, two[:1]), asked) == ["prompts"]


def test_tokens_of_tokenize_count_as_ids():
    asked = asking("tokenize", "t", TOKENIZE, {"prompt": "x"})
    assert fields_of(Reply(200, {"tokens": [1]}), Reply(200, {"tokens": [2]}), asked) == ["token_ids"]


def test_of_errors_type_param_and_code_are_compared_and_the_words_are_not():
    def error(**fields):
        return Reply(400, {"error": {"message": "a", "type": "T", "param": None, "code": 400, **fields}})

    assert fields_of(error(), error(message="b")) == []
    assert fields_of(error(), error(message="")) == ["error.message"]
    assert fields_of(error(), error(type="U", param="p")) == ["error.type", "error.param"]


def test_another_status_or_header_is_found():
    assert fields_of(Reply(200, answer()), Reply(400, {})) == ["status"]
    assert fields_of(Reply(405, {}, {"allow": "GET"}), Reply(405, {}, {"allow": "POST"})) == ["header.allow"]


@pytest.mark.parametrize("field", ["token_ids", "prompts", "count"])
def test_no_request_of_the_corpus_may_have_other_ids(field, requests):
    assert not [each.name for each in requests if known(each, Difference(field, [1], [2]))]


@pytest.mark.parametrize(("theirs", "ours"), [(200, 400), (400, 200), (200, 500), (200, 503)])
def test_no_request_of_the_corpus_may_have_another_status(theirs, ours, requests):
    assert not [each.name for each in requests if known(each, Difference("status", theirs, ours))]


def test_tools_excuse_what_a_tool_parser_adds_and_nothing_else():
    tools = asking("tools", "t", CHAT, {"messages": [], "tools": [{"function": {"name": "f"}}]})
    skip = "sampling_params.skip_special_tokens"
    assert known(tools, Difference(skip, False, True)) is not None
    assert known(tools, Difference(skip, True, False)) is None
    assert known(ASKED, Difference(skip, False, True)) is None
    assert known(tools, Difference("sampling_params.structured_outputs", {"json": {}}, None)) is None


def test_a_run_holds_only_with_enough_requests_and_without_unknown_differences():
    enough = [ASKED] * REQUIRED
    same = (Reply(200, answer()), Reply(200, answer()))
    other = (Reply(200, answer()), Reply(200, answer(token_ids=[9])))
    assert compare(enough, [same] * REQUIRED).holds
    assert not compare(enough[1:], [same] * (REQUIRED - 1)).holds
    differing = compare(enough, [same] * (REQUIRED - 1) + [other])
    assert (differing.holds, differing.ids_differ, differing.with_ids) == (False, 1, REQUIRED)
    assert any("token_ids" in line for line in differing.lines())


def test_the_corpus_is_the_same_every_time_and_large_enough_and_no_name_is_used_twice(requests):
    first = corpus(1, 20)
    assert first == requests
    assert len(first) >= REQUIRED
    assert max(Counter(each.name for each in first).values()) == 1


def test_every_known_difference_has_a_name_of_its_own_and_a_reason():
    assert len({each.name for each in KNOWN}) == len(KNOWN)
    assert all(len(each.reason) > 10 for each in KNOWN)
    assert isinstance(compare([], []), Run)
