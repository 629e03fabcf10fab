"""Block hashes in the answers of the HTTP port: those of the record, and only for who asks."""

import json
import struct

import pytest

from extproc import dynamo_blocks, vllm_blocks
from extproc.pb.tokenext.v1 import tokenization_pb2 as pb
from extproc.pb.tokenext.v1.tokenization_pb2_grpc import TokenizationStub
from extproc.token_metadata import BlockHashes, TokenIds
from extproc.token_proto import from_proto
from tests.tokenext.http_ports import CHAT_PATH, COMPLETION_PATH, serving
from tests.tokenext.models import fake_model
from tests.tokenext.rpc_ports import serving_rpc
from tokenext.block_hashes import DynamoHasher, VllmHasher
from tokenext.render_api.hashes import with_hashes
from tokenext.vocabulary import FakeVocabulary

CHAT = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
COMPLETION = {"model": "m", "prompt": "a prompt of some blocks"}
DYNAMO, VLLM = DynamoHasher(4), VllmHasher(4)
ASKING = {"x_tokenext_block_hashes": "true"}


def model(hasher=DYNAMO):
    return fake_model("m", loras=("poet",), block_hasher=hasher, vocabulary=FakeVocabulary())


def as_packed(told) -> bytes:
    """What a client makes of the hashes it is told."""
    if told["scheme"] == "dynamo":
        return b"".join(struct.pack("<Q", int(each)) for each in told["hashes"])
    return b"".join(bytes.fromhex(each) for each in told["hashes"])


async def record_of(port, path, body, tmp_path):
    async with serving_rpc(port.callout, f"unix:{tmp_path}/s") as channel:
        prompt = pb.Prompt(path=path, body=json.dumps(body).encode())
        answer = await TokenizationStub(channel).Tokenize(pb.TokenizeRequest(prompts=[prompt]))
    return from_proto(answer.results[0].record)


@pytest.mark.parametrize("hasher", [DYNAMO, VLLM])
@pytest.mark.parametrize(
    ("path", "api", "body"),
    [
        (CHAT_PATH, "/v1/chat/completions", CHAT),
        (CHAT_PATH, "/v1/chat/completions", {**CHAT, "cache_salt": "tenant"}),
        (CHAT_PATH, "/v1/chat/completions", {**CHAT, "model": "poet"}),
        (COMPLETION_PATH, "/v1/completions", COMPLETION),
        (COMPLETION_PATH, "/v1/completions", {"model": "m", "prompt": list(range(50)), "cache_salt": "t"}),
        (COMPLETION_PATH, "/v1/completions", {"model": "poet", "prompt": list(range(50))}),
        ("/tokenize", "/v1/chat/completions", CHAT),
        ("/tokenize", "/v1/chat/completions", {**CHAT, "model": "poet"}),
        ("/tokenize", "/v1/completions", {**COMPLETION, "cache_salt": "tenant"}),
    ],
)
async def test_they_are_those_of_the_record_of_the_same_prompt(tmp_path, hasher, path, api, body):
    async with serving(model(hasher)) as port:
        status, answer, _ = await port.post(path, body, **ASKING)
        record = await record_of(port, api, body, tmp_path)
    assert status == 200
    (answer,) = answer if isinstance(answer, list) else [answer]
    assert list(answer)[-1] == "block_hashes"
    told = answer["block_hashes"]
    if record.block_hashes is None:
        assert told is None
        assert (body["model"], hasher) == ("poet", VLLM)
    else:
        assert len(record.block_hashes.hashes) > 0
        assert BlockHashes(told["scheme"], told["block_size"], as_packed(told)) == record.block_hashes


@pytest.mark.parametrize(
    "asking", [{}, {"x_tokenext_block_hashes": "false"}, {"x_tokenext_block_hashes": ""}]
)
async def test_who_does_not_ask_is_answered_as_by_vllm_and_nothing_is_hashed(asking):
    class Unasked:
        def hashes(self, ids, *, cache_salt, lora):
            raise AssertionError("hashed for nobody")

    async with serving(model(Unasked())) as port:
        for path, body in ((CHAT_PATH, CHAT), (COMPLETION_PATH, COMPLETION), ("/tokenize", CHAT)):
            status, answer, _ = await port.post(path, body, **asking)
            assert status == 200
            assert "block_hashes" not in json.dumps(answer)


async def test_where_there_are_none_who_asks_is_told_null():
    async with serving(model(None)) as port:
        for path, body in ((CHAT_PATH, CHAT), ("/tokenize", COMPLETION), ("/tokenize", {"prompt": ""})):
            answer = (await port.post(path, body, **ASKING))[1]
            assert answer["block_hashes"] is None
        assert (await port.post(COMPLETION_PATH, COMPLETION, **ASKING))[1][0]["block_hashes"] is None


async def test_each_prompt_of_a_list_has_its_own():
    prompts = ["one prompt", "another prompt"]
    async with serving(model()) as port:
        both = (await port.post(COMPLETION_PATH, {"prompt": prompts}, **ASKING))[1]
        alone = [(await port.post(COMPLETION_PATH, {"prompt": each}, **ASKING))[1][0] for each in prompts]
    assert [each["block_hashes"] for each in both] == [each["block_hashes"] for each in alone]
    assert both[0]["block_hashes"] != both[1]["block_hashes"]


async def test_of_fewer_ids_than_a_block_there_is_an_empty_list():
    async with serving(model(VllmHasher(64))) as port:
        short = (await port.post(COMPLETION_PATH, {"prompt": "ab"}, **ASKING))[1][0]
        empty = (await port.post("/tokenize", {"prompt": "", "add_special_tokens": False}, **ASKING))[1]
    expected = {"scheme": "vllm-sha256-cbor", "block_size": 64, "hashes": []}
    assert [short["block_hashes"], empty["block_hashes"]] == [expected, expected]


async def test_of_ids_that_no_engine_takes_there_are_none():
    async with serving(model(VLLM)) as port:
        status, answer, _ = await port.post(COMPLETION_PATH, {"prompt": [2**32, 1, 2, 3]}, **ASKING)
    assert (status, answer[0]["block_hashes"]) == (200, None)


async def test_a_chats_given_ids_are_hashed_in_the_place_of_its_messages():
    given = {**CHAT, "kv_transfer_params": {"prompt_token_ids": [4, 2, 4, 2]}}
    async with serving(model()) as port:
        answer = (await port.post(CHAT_PATH, given, **ASKING))[1]
    packed = TokenIds.pack([4, 2, 4, 2]).packed
    assert answer["block_hashes"]["hashes"] == [str(key) for key in dynamo_blocks.block_keys(packed, 4)]


@pytest.mark.parametrize("salt", [5, "\ud800", None, ""])
async def test_a_salt_of_tokenize_that_is_no_text_is_a_field_that_nobody_reads(salt):
    async with serving(model(VLLM)) as port:
        for body in (CHAT, COMPLETION):
            plain = await port.post("/tokenize", body, **ASKING)
            odd = await port.post("/tokenize", {**body, "cache_salt": salt}, **ASKING)
            assert (odd[0], odd[1]) == (200, plain[1])


async def test_a_salt_that_is_no_text_is_none_for_ids_too():
    odd = {"prompt": [1, 2, 3, 4], "cache_salt": "\ud800"}
    async with serving(model(VLLM)) as port:
        status, answer, _ = await port.post(COMPLETION_PATH, odd, **ASKING)
        plain = (await port.post(COMPLETION_PATH, {"prompt": [1, 2, 3, 4]}, **ASKING))[1]
    assert (status, answer[0]["block_hashes"]) == (200, plain[0]["block_hashes"])


def test_numbers_above_what_a_float_holds_are_texts_and_lose_nothing():
    largest = 2**64 - 1
    told = with_hashes(b'{"a":1}', BlockHashes("dynamo", 16, struct.pack("<2Q", largest, 0)))
    assert told == (
        b'{"a":1,"block_hashes":{"scheme":"dynamo","block_size":16,"hashes":["18446744073709551615","0"]}}'
    )


def test_vllms_end_in_the_number_of_its_events():
    packed = TokenIds.pack(list(range(8))).packed
    found = vllm_blocks.block_hashes(packed, 4)
    told = json.loads(with_hashes(b'{"a":1}', VLLM.hashes(TokenIds(packed), cache_salt="", lora="")))
    numbers = [int(each[-16:], 16) for each in told["block_hashes"]["hashes"]]
    assert numbers == [int.from_bytes(each[-8:], "big") for each in found]


async def test_the_document_has_the_header_and_the_key():
    async with serving() as port:
        document = json.loads((await port.get("/openapi.json"))[1])
    for path in (CHAT_PATH, COMPLETION_PATH, "/tokenize"):
        operation = document["paths"][path]["post"]
        assert [each["name"] for each in operation["parameters"]] == ["x-tokenext-block-hashes"]
        assert "block_hashes" in json.dumps(operation["responses"]["200"])
