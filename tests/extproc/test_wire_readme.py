"""proto/README.md: what it tells people to write works, and its lists are complete."""

import asyncio
import re
from array import array
from pathlib import Path

import pytest

from extproc.exchange import PassingExchange
from extproc.pb.tokenext.v1 import tokenization_pb2 as pb
from extproc.pb.tokenext.v1 import tokenization_pb2_grpc
from extproc.server import Server, ServerOptions
from tokenext.declined import SkipReason

README = (Path(__file__).resolve().parents[2] / "proto" / "README.md").read_text()


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


async def test_the_python_lines_call_the_rpc(peer, tmp_path):
    (lines,) = [
        block
        for block in re.findall(r"```python\n(.*?)```", README, re.DOTALL)
        if "TokenizationStub" in block
    ]
    names = {}
    exec(lines.replace("unix:/run/tokenext.sock", f"unix:{tmp_path}/s"), names)
    assert await names["token_ids"]("/v1/chat/completions", b"{}") == array("I", [1, 256])
    peer.skip_reason = "multimodal"
    assert await names["token_ids"]("/v1/chat/completions", b"{}") is None
    await names["channel"].close(None)


def test_every_reason_for_no_record_is_explained():
    table = README.partition("`skip_reason` is one of:")[2].partition("Treat words")[0]
    assert set(re.findall(r"`([a-z_]+)`", table)) - {"limits"} == {reason.value for reason in SkipReason}
