"""A Tokenization service that answers as it is told."""

import asyncio
from contextlib import asynccontextmanager

from extproc.exchange import PassingExchange
from extproc.pb.tokenext.v1 import tokenization_pb2 as pb
from extproc.pb.tokenext.v1 import tokenization_pb2_grpc
from extproc.server import Server, ServerOptions
from extproc.token_metadata import Kind, TokenIds, TokenRecord
from extproc.token_proto import to_proto

__all__ = ["RECORD", "Peer", "serving"]

RECORD = TokenRecord("qwen3", "sha256:1", TokenIds.pack([1, 2, 2**32 - 1]), Kind.CHAT, engine_exact=True)


class Peer:
    """Has one record, and notes what it was asked."""

    def __init__(self):
        self.answer = pb.TokenizeResponse(results=[pb.PromptResult(record=to_proto(RECORD))])
        self.asked = []
        self.seconds = 0.0
        self.cancelled = asyncio.Event()
        self.code = None

    async def tokenize(self, request, context):
        self.asked.extend(request.prompts)
        try:
            await asyncio.sleep(self.seconds)
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
        if self.code is not None:
            await context.abort(self.code, "as told")
        return self.answer

    async def until_asked(self):
        async with asyncio.timeout(2):
            while not self.asked:  # noqa: ASYNC110  # no event tells
                await asyncio.sleep(0.005)

    def register(self, server):
        servicer = tokenization_pb2_grpc.TokenizationServicer()
        servicer.Tokenize = self.tokenize
        tokenization_pb2_grpc.add_TokenizationServicer_to_server(servicer, server)


@asynccontextmanager
async def serving(register, address="127.0.0.1:0", *, tls=None):
    """A server with this Tokenization service beside its ext_proc."""
    options = ServerOptions(address, drain_seconds=0, tls=tls)
    server = Server(options, PassingExchange, {"tokenext.v1.Tokenization": register})
    await server.start()
    running = asyncio.create_task(server.run_until_stopped())
    try:
        yield server
    finally:
        server.stop()
        await running
