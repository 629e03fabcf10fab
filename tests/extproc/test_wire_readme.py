"""proto/README.md: what it tells people to write works, and its lists are complete."""

import asyncio
import json
import re
from array import array
from pathlib import Path

import pytest
from envoy.config.core.v3.base_pb2 import Metadata
from google.protobuf import json_format

from extproc.exchange import PassingExchange
from extproc.pb.tokenext.v1 import tokenization_pb2 as pb
from extproc.pb.tokenext.v1 import tokenization_pb2_grpc
from extproc.pb.tokenext.v1.token_record_pb2 import TokenRecord
from extproc.server import Server, ServerOptions
from tokenext.declined import SkipReason

PROTO = Path(__file__).resolve().parents[2] / "proto"
README = (PROTO / "README.md").read_text()
VECTORS = json.loads((PROTO / "testdata" / "token_records.json").read_text())


class Peer:
    """Has one record for every prompt, or none."""

    skip_reason = ""

    async def tokenize(self, request, context):
        record = {"token_count": 2, "token_ids": b"\x01\0\0\0\0\x01\0\0"}
        results = [
            pb.PromptResult(skip_reason=self.skip_reason)
            if self.skip_reason
            else pb.PromptResult(record=record)
            for _ in request.prompts
        ]
        return pb.TokenizeResponse(results=results)

    def register(self, server):
        servicer = tokenization_pb2_grpc.TokenizationServicer()
        servicer.Tokenize = self.tokenize
        tokenization_pb2_grpc.add_TokenizationServicer_to_server(servicer, server)


@pytest.fixture
async def peer(tmp_path):
    peer = Peer()
    options = ServerOptions(f"unix:{tmp_path}/s", drain_seconds=0)
    server = Server(options, PassingExchange, {"tokenext.v1.Tokenization": peer.register})
    await server.start()
    running = asyncio.create_task(server.run_until_stopped())
    yield peer
    server.stop()
    await running


def python_lines(mark: str) -> str:
    """The page's only block of Python that holds `mark`."""
    (lines,) = [block for block in re.findall(r"```python\n(.*?)```", README, re.DOTALL) if mark in block]
    return lines


@pytest.fixture(scope="module")
def record_of():
    """The page's reader without our code, beside code that protoc generated."""
    names = {"TokenRecord": TokenRecord}
    exec(python_lines("def record_of"), names)
    return names["record_of"]


def received(record) -> Metadata:
    """As Envoy forwards it."""
    metadata = Metadata()
    json_format.ParseDict({"filterMetadata": {"tokenext": {"record": record}}}, metadata)
    return metadata.filter_metadata


@pytest.mark.parametrize("vector", VECTORS["readable"], ids=lambda vector: vector["name"])
def test_the_python_reader_reads_a_vector_as_it_is_meant(record_of, vector):
    record, expected = record_of(received(vector["record"])), vector["expected"]
    assert array("I", record.token_ids).tolist() == expected["token_ids"]
    assert (record.model, record.tokenizer_digest) == (expected["model"], expected["tokenizer_digest"])
    assert (record.engine_exact, record.reason) == (expected["engine_exact"], expected["reason"])


@pytest.mark.parametrize("vector", VECTORS["refused"], ids=lambda vector: vector["name"])
def test_the_python_reader_refuses_a_vector_that_is_not_to_be_relied_on(record_of, vector):
    assert record_of(received(vector["record"])) is None


def test_the_python_reader_finds_no_record_where_there_is_none(record_of):
    assert record_of(Metadata().filter_metadata) is None


async def test_the_python_lines_call_the_rpc(peer, tmp_path):
    lines = python_lines("TokenizationStub")
    names = {}
    exec(lines.replace("unix:/run/tokenext.sock", f"unix:{tmp_path}/s"), names)
    assert await names["token_ids"]("/v1/chat/completions", b"{}") == array("I", [1, 256])
    peer.skip_reason = "multimodal"
    assert await names["token_ids"]("/v1/chat/completions", b"{}") is None
    await names["channel"].close(None)


def test_every_reason_for_no_record_is_explained():
    table = README.partition("`skip_reason` is one of:")[2].partition("Treat words")[0]
    assert set(re.findall(r"`([a-z_]+)`", table)) - {"limits"} == {reason.value for reason in SkipReason}
