import json

import pytest

from extproc.log_settings import LogLevel, LogSettings
from extproc.token_metadata import TokenIds
from tests.tokenext.models import fake_model
from tokenext.breaker import BreakerState
from tokenext.catalog import Catalog
from tokenext.json_log import JsonLog
from tokenext.observer import ExchangeRecord, Outcome, Stage
from tokenext.parity import Agreement, ParityRecord, ProbeResult, Report, Standing


class Lines(list[str]):
    """What was written, without what every line has alike."""

    @property
    def told(self) -> list[dict]:
        lines = [json.loads(line) for line in self]
        for line in lines:
            assert line.pop("logger") == "tokenext"
            assert line.pop("time")
        return lines

    def messages(self) -> list[str]:
        return [line["message"] for line in self.told]


def test_a_line_says_when_and_how_grave_before_anything_else():
    lines = Lines()
    JsonLog(lines.append, now=lambda: 1_000_000.25).serving("127.0.0.1:9000")
    (line,) = lines
    assert line == (
        '{"time":"1970-01-12T13:46:40.250Z","level":"info","logger":"tokenext","message":"serving",'
        '"address":"127.0.0.1:9000"}\n'
    )


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
            "level": "info",
            "message": "exchange",
            "model": "m",
            "outcome": "tokenized",
            "engine_exact": True,
            "handed_off": True,
            "prompt_tokens": 7,
            "request_id": "0a1b",
            "microseconds": {"render": 1200},
        }
    ]


WELL = ExchangeRecord("m", Outcome.TOKENIZED)
PASSED = ExchangeRecord("other", Outcome.PASSED, "unknown_model")
LATE = ExchangeRecord("m", Outcome.PASSED, "deadline")
TOO_LARGE = ExchangeRecord("other", Outcome.REJECTED, "request_too_large")


@pytest.mark.parametrize(
    "reason", ["deadline", "queue_full", "engine_failed", "render_deadline", "breaker_open"]
)
def test_an_exchange_that_could_have_been_tokenized_is_a_warning(reason):
    lines = Lines()
    JsonLog(lines.append).exchanged(ExchangeRecord("m", Outcome.PASSED, reason))
    assert [(line["level"], line["reason"]) for line in lines.told] == [("warning", reason)]


def test_an_exchange_whose_client_got_an_error_is_a_warning_and_one_that_has_no_ids_by_nature_is_not():
    lines = Lines()
    log = JsonLog(lines.append)
    for record in (TOO_LARGE, PASSED, WELL):
        log.exchanged(record)
    assert [line["level"] for line in lines.told] == ["warning", "info", "info"]


def test_of_exchanges_that_went_well_a_share_is_told_and_of_the_others_all():
    lines = Lines()
    log = JsonLog(lines.append, LogSettings(exchange_ratio=0.25))
    for _ in range(4):
        log.exchanged(WELL)
        log.exchanged(LATE)
    assert [line["level"] for line in lines.told].count("warning") == 4
    assert [line["level"] for line in lines.told].count("info") == 1


@pytest.mark.parametrize(
    ("level", "told"),
    [
        (LogLevel.DEBUG, ["exchange", "exchange", "serving", "breaker", "reload_failed"]),
        (LogLevel.INFO, ["exchange", "exchange", "serving", "breaker", "reload_failed"]),
        (LogLevel.WARNING, ["exchange", "breaker", "reload_failed"]),
        (LogLevel.ERROR, ["reload_failed"]),
    ],
)
def test_the_level_holds_for_every_line(level, told):
    lines = Lines()
    log = JsonLog(lines.append, LogSettings(level=level))
    log.exchanged(WELL)
    log.exchanged(LATE)
    log.serving("127.0.0.1:9000")
    log.breaker_changed("m", BreakerState.OPEN)
    log.reload_failed("no file")
    assert lines.messages() == told


def test_models_are_told_with_the_reason_for_their_engine():
    lines = Lines()
    JsonLog(lines.append).reloaded(Catalog([fake_model("m")]))
    reloaded, model = lines.told
    assert reloaded == {"level": "info", "message": "reloaded"}
    assert (model["name"], model["engine"], model["engine_reason"]) == ("m", "fake", "a test")
    assert model["prefix_cache"] == "off"


def test_a_bad_reload_says_why():
    lines = Lines()
    JsonLog(lines.append).reload_failed("t.yaml: models: is missing")
    assert lines.told == [
        {"level": "error", "message": "reload_failed", "problem": "t.yaml: models: is missing"}
    ]


MISMATCH = ProbeResult(
    7, "a name", Agreement.MISMATCH, "2 ids here, 1 there", 30, TokenIds.pack([11, 12]), TokenIds.pack([13])
)


def test_a_mismatch_is_an_error_that_names_the_probe_and_no_content():
    lines = Lines()
    report = Report((ProbeResult(1, "b", Agreement.EQUAL), MISMATCH))
    JsonLog(lines.append).verified(ParityRecord("m", Standing.CLEAN, Standing.MISMATCH, report))
    assert lines.told == [
        {
            "level": "error",
            "message": "parity_mismatch",
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
    assert lines.messages() == ["parity_clean"]


def test_a_round_that_learnt_nothing_says_why():
    lines = Lines()
    JsonLog(lines.append).verified(
        ParityRecord("m", Standing.CLEAN, Standing.CLEAN, Report((), "http://e cannot be reached"))
    )
    (line,) = lines.told
    assert (line["message"], line["problem"]) == ("parity_inconclusive", "http://e cannot be reached")
