"""The comparison finds what it is there to find: a run that cannot fail would prove nothing."""

from dataclasses import replace

import pytest

from tests.e2e_vllm.comparison import Attached, Finding, Seen, judge, judge_foreign
from tests.e2e_vllm.engine_reply import EngineReply
from tests.e2e_vllm.request import Expected, Request
from tests.parity.corpus.case import CHAT

IDS = (1, 2, 3)
OTHERS = (1, 2, 4)


def reply(*prompts, status=200, tokens=None, error=""):
    tokens = sum(map(len, prompts)) if tokens is None and prompts else tokens
    return EngineReply("id", status, prompts, tokens, 0, error)


def seen(expected=Expected.ANY, *, ids=IDS, exact=True, handed_over=True, reason="", **ways):
    request = Request("a request", "plain", CHAT, expected, "{}", "{}", echoes=ways.pop("echoes", True))
    attached = Attached(ids, exact, handed_over, reason)
    return Seen(request, attached, **{"chain": reply(IDS), "past": reply(IDS), "chain_first": True, **ways})


def test_three_equal_tellings_are_handed_over():
    assert judge(seen(Expected.HANDED)).finding is Finding.HANDED


@pytest.mark.parametrize(
    ("told", "problem"),
    [
        (seen(ids=OTHERS), "the record's ids are not vLLM's: 3 against 3 ids, the first difference at 2"),
        (seen(ids=IDS[:2]), "2 against 3 ids, the first difference at 2"),
        (seen(chain=reply(OTHERS)), "vLLM ran other ids through the chain"),
        (seen(chain=reply(OTHERS), ids=OTHERS), "vLLM ran other ids through the chain"),
        (seen(exact=False, handed_over=False, chain=reply(OTHERS)), "vLLM ran other ids through the chain"),
        (seen(ids=None, exact=False, handed_over=False, chain=reply(IDS, IDS)), "2 prompts against 1"),
        (seen(chain=reply(IDS, tokens=4)), "usage 4 through the chain, 3 past it"),
        (seen(exact=False), "handed over that promise nothing"),
        (seen(chain=reply(status=502)), "status 502"),
        (seen(chain=reply(status=400, error="a"), past=reply(status=400, error="b")), "error 'a'"),
        (seen(chain=reply(), past=reply()), "echoed no ids"),
        (seen(echoes=False, chain=reply(tokens=100), past=reply(tokens=13)), "usage 100"),
    ],
)
def test_what_disagrees_is_a_mismatch(told, problem):
    judged = judge(told)
    assert judged.finding is Finding.MISMATCH
    assert problem in judged.problem


@pytest.mark.parametrize(
    "told",
    [
        seen(Expected.HANDED, handed_over=False),
        seen(Expected.HANDED, ids=None, exact=False, handed_over=False, reason="deadline"),
        seen(Expected.LEFT),
        seen(Expected.OWN_IDS),
        seen(Expected.OWN_IDS, ids=None, exact=False, handed_over=False),
    ],
)
def test_equal_ids_are_not_enough_where_tokenext_did_not_do_its_part(told):
    assert judge(told).finding is Finding.MISMATCH


@pytest.mark.parametrize(
    ("told", "finding"),
    [
        (seen(Expected.OWN_IDS, handed_over=False), Finding.OWN_IDS),
        (seen(Expected.LEFT, handed_over=False), Finding.KEPT),
        (seen(ids=OTHERS, exact=False, handed_over=False), Finding.NOT_EXACT),
        (seen(ids=None, exact=False, handed_over=False), Finding.UNTOKENIZED),
        (seen(chain=reply(status=400, error="a"), past=reply(status=400, error="a")), Finding.REFUSED),
    ],
)
def test_what_promises_nothing_is_counted_apart(told, finding):
    assert judge(told).finding is finding


FOREIGN = seen(ids=OTHERS[:2], chain=reply(OTHERS[:2]))


def test_foreign_ids_prove_that_the_engine_ran_what_it_was_given():
    assert judge_foreign(FOREIGN).finding is Finding.HANDED


@pytest.mark.parametrize(
    "changes",
    [
        {"chain": reply(IDS)},
        {"past": reply(OTHERS[:2])},
        {"chain": reply(OTHERS[:2], tokens=3)},
        {"past": reply(IDS, tokens=2)},
        {"past": reply(status=500)},
        {"attached": Attached(OTHERS[:2], exact=True, handed_over=False, reason="")},
    ],
)
def test_foreign_ids_prove_nothing_where_one_link_is_missing(changes):
    assert judge_foreign(replace(FOREIGN, **changes)).finding is Finding.MISMATCH
