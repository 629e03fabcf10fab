"""Where token ids come from: each place, their order, and what is not trusted."""

import json

import pytest

from epp_adapter.records.body_ids import read_body_ids
from epp_adapter.records.finder import Finding, RecordFinder, RecordSource, RecordState
from epp_adapter.records.tokenizer import CalloutError, CalloutFault, FakeTokenizer
from extproc.events import Headers, RequestReady, StaticMetadata
from extproc.token_metadata import Kind, RecordError, RecordFault, TokenIds, TokenRecord, encode

CHAT = "/v1/chat/completions"
COMPLETION = "/v1/completions"
RECORD = TokenRecord("qwen3", "sha256:1", TokenIds.pack([1, 2, 3]), Kind.CHAT, engine_exact=True)
BODY_IDS = {"model": "qwen3", "nvext": {"token_data": [7, 8]}}
METADATA, BODY, CALLOUT = RecordSource


def request(record=None, body=None, path=CHAT, method="POST", namespace="tokenext") -> RequestReady:
    metadata = {} if record is None else {namespace: {"record": record}}
    text = body if isinstance(body, bytes | None) else json.dumps(body).encode()
    return RequestReady(Headers({":method": method, ":path": path}), text, StaticMetadata(metadata))


async def found(request: RequestReady, **options):
    seen = []
    result = await RecordFinder(observe=seen.append, **options).find(request)
    assert tuple(seen) == result.findings
    return result


async def test_metadata_comes_first_and_nobody_else_is_asked():
    tokenizer = FakeTokenizer()
    result = await found(request(encode(RECORD), BODY_IDS), tokenizer=tokenizer, trust_body_ids=True)
    assert result.record == RECORD
    assert result.findings == (Finding(METADATA, RecordState.USED),)
    assert not tokenizer.asked


async def test_then_the_bodys_own_ids_where_they_are_trusted():
    tokenizer = FakeTokenizer()
    result = await found(request(body=BODY_IDS), tokenizer=tokenizer, trust_body_ids=True)
    assert result.record.token_ids == TokenIds.pack([7, 8])
    assert [finding.source for finding in result.findings] == [METADATA, BODY]
    assert not tokenizer.asked


async def test_a_clients_own_ids_are_not_trusted_by_default():
    result = await found(request(body=BODY_IDS))
    assert result.record is None
    assert result.findings == (Finding(METADATA, RecordState.ABSENT),)


async def test_then_tokenext_is_called_with_the_path_and_the_body():
    tokenizer = FakeTokenizer()
    result = await found(request(body=b"{}", path=f"{CHAT}?x=1"), tokenizer=tokenizer, trust_body_ids=True)
    assert tokenizer.asked == [(CHAT, b"{}")]
    assert result.record.model == "fake"
    assert result.findings[-1] == Finding(CALLOUT, RecordState.USED)


@pytest.mark.parametrize(
    "asking",
    [
        request(),
        request(body=b""),
        request(body=b"{}", path="/v1/models"),
        request(body=b"{}", method="GET"),
    ],
)
async def test_a_request_that_tokenext_would_pass_is_not_worth_a_call(asking):
    tokenizer = FakeTokenizer()
    assert (await found(asking, tokenizer=tokenizer)).record is None
    assert not tokenizer.asked


@pytest.mark.parametrize("fault", list(CalloutFault))
async def test_a_call_that_fails_is_a_finding_and_no_error(fault):
    tokenizer = FakeTokenizer(CalloutError(fault, "it failed"))
    result = await found(request(body=b"{}"), tokenizer=tokenizer)
    assert (result.record, result.findings[-1]) == (None, Finding(CALLOUT, fault))


async def test_a_record_that_cannot_be_read_is_counted_and_the_next_place_is_tried():
    bad = encode(RECORD) | {"tokenCount": 9}
    result = await found(request(bad, b"{}"), tokenizer=FakeTokenizer())
    assert result.record.model == "fake"
    assert result.findings == (
        Finding(METADATA, RecordFault.COUNT_MISMATCH),
        Finding(CALLOUT, RecordState.USED),
    )


async def test_the_namespace_is_configurable():
    asking = request(encode(RECORD), namespace="envoy.lb")
    assert (await found(asking, namespace="envoy.lb")).record == RECORD
    assert (await found(asking)).record is None


async def test_a_record_of_another_tokenizer_than_the_pools_is_not_used():
    result = await found(request(encode(RECORD)), digests={"qwen3": "sha256:2"})
    assert (result.record, result.findings) == (None, (Finding(METADATA, RecordState.FOREIGN_DIGEST),))
    assert (await found(request(encode(RECORD)), digests={"qwen3": "sha256:1"})).record == RECORD
    assert (await found(request(encode(RECORD)), digests={"other": "sha256:2"})).record == RECORD


async def test_a_body_may_only_name_models_that_are_configured_since_the_name_is_logged():
    asking = request(body=BODY_IDS)
    known = await found(asking, trust_body_ids=True, models=frozenset({"qwen3"}))
    assert known.record.model == "qwen3"
    assert (await found(asking, trust_body_ids=True)).record.model == ""


@pytest.mark.parametrize(
    ("path", "body", "ids"),
    [
        (CHAT, {"nvext": {"token_data": [1, 2]}}, [1, 2]),
        (COMPLETION, {"nvext": {"token_data": [1, 2]}, "prompt": "text"}, [1, 2]),
        (CHAT, {"kv_transfer_params": {"prompt_token_ids": [3]}, "messages": []}, [3]),
        (COMPLETION, {"prompt": [4, 2**32 - 1]}, [4, 2**32 - 1]),
        (CHAT, {"input_ids": [5]}, [5]),
        (CHAT, {"nvext": {"token_data": [1], "other": True}, "input_ids": [9]}, [1]),
        (COMPLETION, {"prompt": "a text"}, None),
        (COMPLETION, {"prompt": ["two", "texts"]}, None),
        (COMPLETION, {"prompt": [[1, 2], [3]]}, None),
        (COMPLETION, {"prompt": []}, None),
        (CHAT, {"nvext": {"token_data": []}}, None),
        (CHAT, {"nvext": None, "messages": []}, None),
        (CHAT, {"messages": []}, None),
        ("/v1/responses", {"nvext": {"token_data": [1]}}, None),
    ],
)
def test_ids_are_read_from_the_field_that_the_engine_reads(path, body, ids):
    record = read_body_ids(path, json.dumps(body).encode())
    assert (None if record is None else record.token_ids) == (None if ids is None else TokenIds.pack(ids))


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[1]",
        b"{",
        b'{"nvext": {"token_data": "AAA="}}',
        b'{"nvext": {"token_data": [1, -1]}}',
        b'{"nvext": {"token_data": [4294967296]}}',
        b'{"nvext": {"token_data": [1.5]}}',
        b'{"nvext": 7}',
        b'{"prompt": [1, "two"]}',
        b'{"model": 7}',
        b'{"nvext": ' + b"[" * 100_000,
    ],
)
def test_ids_that_cannot_be_read_are_a_record_error(body):
    with pytest.raises(RecordError) as caught:
        read_body_ids(COMPLETION, body)
    assert caught.value.fault is RecordFault.BAD_FIELD


def test_more_ids_than_a_record_may_hold_are_refused():
    body = b'{"prompt": [' + b"1," * 4_000_000 + b"1]}"
    with pytest.raises(RecordError) as caught:
        read_body_ids(COMPLETION, body)
    assert caught.value.fault is RecordFault.TOO_LARGE
