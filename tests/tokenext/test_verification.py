import json
from dataclasses import replace

from extproc.token_metadata import TokenIds
from tests.tokenext.models import InexactProfile, fake_model
from tokenext.openai import Api
from tokenext.oracle import FakeOracle, NotAsked, OracleError, Refusal
from tokenext.parity import Agreement, Finding
from tokenext.probe_corpus import Probe
from tokenext.profiles import InexactReason
from tokenext.verification import verify

HI = Probe(1, "hi", Api.COMPLETION, {"prompt": "hi"})
LONGER = Probe(2, "longer", Api.COMPLETION, {"prompt": "hi there"})
NO_ROLE = Probe(3, "no role", Api.CHAT, {"messages": [{"content": "x"}]})


def right(api: Api, body: bytes) -> TokenIds:
    return TokenIds.pack([256, *json.loads(body)["prompt"].encode()])


async def seen(answer, *probes: Probe, model=None) -> list[Agreement]:
    report = await verify(model or fake_model(), FakeOracle(answer), probes, engine_model="m")
    return [result.agreement for result in report.results]


async def test_equal_ids_are_equal():
    assert await seen(right, HI, LONGER) == [Agreement.EQUAL, Agreement.EQUAL]


async def test_other_ids_are_a_mismatch_that_keeps_both():
    report = await verify(
        fake_model(), FakeOracle(lambda api, body: TokenIds.pack([1])), [HI], engine_model="m"
    )
    (result,) = report.results
    assert result.agreement is Agreement.MISMATCH
    assert result.detail == "3 ids here, 1 there"
    assert (result.ours, result.theirs) == (TokenIds.pack([256, *b"hi"]), TokenIds.pack([1]))


async def test_what_we_promise_nothing_about_is_no_mismatch():
    model = fake_model(profile=InexactProfile())
    assert await seen(lambda api, body: TokenIds.pack([1]), HI, model=model) == [Agreement.INEXACT]


async def test_what_either_side_leaves_out_is_told_apart():
    assert await seen(lambda api, body: TokenIds.pack([1]), NO_ROLE) == [Agreement.DECLINED]
    assert await seen(lambda api, body: Refusal(400), HI) == [Agreement.REFUSED]
    assert await seen(lambda api, body: NotAsked(), HI) == [Agreement.NOT_ASKED]


async def test_the_engine_is_asked_by_its_own_name_for_the_model():
    oracle = FakeOracle(right)
    await verify(fake_model(), oracle, [HI], engine_model="org/M")
    assert [json.loads(body)["model"] for _, body in oracle.asked] == ["org/M"]


async def test_an_engine_that_goes_away_ends_the_round():
    def answer(api: Api, body: bytes) -> TokenIds:
        if b"there" in body:
            raise OracleError("gone")
        return right(api, body)

    report = await verify(fake_model(), FakeOracle(answer), [HI, LONGER, HI], engine_model="m")
    assert (len(report.results), report.problem, report.finding) == (1, "gone", Finding.INCONCLUSIVE)


async def test_a_round_in_which_nothing_could_be_compared_says_so():
    report = await verify(
        fake_model(), FakeOracle(lambda api, body: Refusal(404)), [HI, LONGER], engine_model="m"
    )
    assert report.problem == "the engine refuses 2 of 2 probes (404)"
    report = await verify(fake_model(), FakeOracle(lambda api, body: NotAsked()), [HI], engine_model="m")
    assert report.problem == "no probe could be compared"


async def test_a_model_in_doubt_is_probed_as_if_it_were_not():
    doubted = replace(fake_model(), doubt=InexactReason.PARITY)
    assert await seen(right, HI, model=doubted) == [Agreement.EQUAL]
