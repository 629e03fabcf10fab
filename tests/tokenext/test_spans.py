"""What a trace says of tokenizing."""

from extproc.tracing import RecordingTracing, Stretch
from tokenext.declined import FAULTS, SkipReason
from tokenext.observer import ExchangeRecord, Outcome, Stage
from tokenext.spans import ExchangeSpans

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def told_of(record: ExchangeRecord) -> tuple[str, Stretch, tuple[Stretch, ...]]:
    tracing = RecordingTracing()
    ExchangeSpans(tracing, lambda: 9.0).exchanged(record)
    (told,) = tracing.told
    return told


def test_stages_follow_one_another_from_where_the_exchange_began():
    record = ExchangeRecord(
        "qwen3",
        Outcome.TOKENIZED,
        engine_exact=True,
        prompt_tokens=70,
        traceparent=PARENT,
        began=5.0,
        seconds={Stage.PARSE: 1.0, Stage.RENDER: 0.5, Stage.ENCODE: 2.0},
    )
    traceparent, whole, stages = told_of(record)
    assert traceparent == PARENT
    assert (whole.name, whole.began, whole.ended, whole.failed) == ("tokenize", 5.0, 9.0, False)
    assert [(each.name, each.began, each.ended) for each in stages] == [
        ("parse", 5.0, 6.0),
        ("render", 6.0, 6.5),
        ("encode", 6.5, 8.5),
    ]
    assert whole.attributes == {
        "gen_ai.request.model": "qwen3",
        "gen_ai.usage.input_tokens": 70,
        "tokenext.outcome": "tokenized",
        "tokenext.engine_exact": True,
        "tokenext.handed_off": False,
    }


def test_a_request_that_passed_says_why_and_has_no_tokens():
    _, whole, stages = told_of(ExchangeRecord("other", Outcome.PASSED, "unknown_model", request_id="an-id"))
    assert stages == ()
    assert whole.attributes == {
        "gen_ai.request.model": "other",
        "tokenext.outcome": "passed",
        "tokenext.reason": "unknown_model",
        "tokenext.request_id": "an-id",
    }


def test_a_span_has_failed_where_the_model_is_at_fault_or_late_and_not_else():
    failed = {
        reason
        for reason in SkipReason
        if told_of(ExchangeRecord("m", Outcome.PASSED, reason.value))[1].failed
    }
    assert (
        failed == set(FAULTS) == {SkipReason.ENGINE_FAILED, SkipReason.RENDER_DEADLINE, SkipReason.DEADLINE}
    )
