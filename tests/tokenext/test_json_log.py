import json

from tests.tokenext.models import fake_model
from tokenext.catalog import Catalog
from tokenext.json_log import JsonLog
from tokenext.observer import ExchangeRecord, Outcome, Stage


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


def test_a_bad_reload_says_why():
    lines = Lines()
    JsonLog(lines.append).reload_failed("t.yaml: models: is missing")
    assert lines.told == [{"event": "reload_failed", "problem": "t.yaml: models: is missing"}]
