import json

from extproc.token_metadata import TokenIds
from tests.tokenext.models import fake_model
from tokenext.catalog import Catalog
from tokenext.json_log import JsonLog
from tokenext.observer import ExchangeRecord, Outcome, Stage
from tokenext.parity import Agreement, ParityRecord, ProbeResult, Report, Standing


class Lines(list[str]):
    @property
    def told(self) -> list[dict]:
        return [json.loads(line) for line in self]


def test_an_exchange_is_one_line_of_json():
    lines = Lines()
    JsonLog(lines.append).exchanged(
        ExchangeRecord(
            "m",
            Outcome.TOKENIZED,
            engine_exact=True,
            handed_off=True,
            prompt_tokens=7,
            request_id="0a1b",
            seconds={Stage.RENDER: 0.0012},
        )
    )
    assert [line.count("\n") for line in lines] == [1]
    assert lines.told == [
        {
            "event": "exchange",
            "model": "m",
            "outcome": "tokenized",
            "engine_exact": True,
            "handed_off": True,
            "prompt_tokens": 7,
            "request_id": "0a1b",
            "microseconds": {"render": 1200},
        }
    ]


def test_exchanges_can_be_left_out():
    lines = Lines()
    log = JsonLog(lines.append, exchanges=False)
    log.exchanged(ExchangeRecord("m", Outcome.PASSED, "deadline"))
    log.serving("127.0.0.1:9000")
    log.stopped()
    assert [line["event"] for line in lines.told] == ["serving", "stopped"]


def test_models_are_told_with_the_reason_for_their_engine():
    lines = Lines()
    JsonLog(lines.append).reloaded(Catalog([fake_model("m")]))
    reloaded, model = lines.told
    assert reloaded == {"event": "reloaded"}
    assert (model["name"], model["engine"], model["engine_reason"]) == ("m", "fake", "a test")
    assert model["prefix_cache"] == "off"


def test_a_bad_reload_says_why():
    lines = Lines()
    JsonLog(lines.append).reload_failed("t.yaml: models: is missing")
    assert lines.told == [{"event": "reload_failed", "problem": "t.yaml: models: is missing"}]


MISMATCH = ProbeResult(
    7, "a name", Agreement.MISMATCH, "2 ids here, 1 there", 30, TokenIds.pack([11, 12]), TokenIds.pack([13])
)


def test_a_mismatch_is_an_error_that_names_the_probe_and_no_content():
    lines = Lines()
    report = Report((ProbeResult(1, "b", Agreement.EQUAL), MISMATCH))
    JsonLog(lines.append).verified(ParityRecord("m", Standing.CLEAN, Standing.MISMATCH, report))
    assert lines.told == [
        {
            "event": "parity_mismatch",
            "severity": "error",
            "model": "m",
            "probe": 7,
            "probes": {"equal": 1, "mismatch": 1},
            "handoff": "off",
        }
    ]


def test_a_clean_standing_is_told_when_it_begins():
    lines = Lines()
    report = Report((ProbeResult(1, "b", Agreement.EQUAL),))
    log = JsonLog(lines.append)
    log.verified(ParityRecord("m", Standing.MISMATCH, Standing.CLEAN, report))
    log.verified(ParityRecord("m", Standing.CLEAN, Standing.CLEAN, report))
    assert [line["event"] for line in lines.told] == ["parity_clean"]


def test_a_round_that_learnt_nothing_says_why():
    lines = Lines()
    JsonLog(lines.append).verified(
        ParityRecord("m", Standing.CLEAN, Standing.CLEAN, Report((), "http://e cannot be reached"))
    )
    (line,) = lines.told
    assert (line["event"], line["problem"]) == ("parity_inconclusive", "http://e cannot be reached")
