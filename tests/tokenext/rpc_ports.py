"""The Tokenization RPC on a real gRPC port."""

import asyncio
from contextlib import asynccontextmanager

import grpc

from extproc.exchange import PassingExchange
from extproc.server import Server, ServerOptions
from tokenext import tokenize_service
from tokenext.callout import Callout

__all__ = ["serving_rpc"]


@asynccontextmanager
async def serving_rpc(callout: Callout, address: str = "127.0.0.1:0"):
    server = Server(
        ServerOptions(address, drain_seconds=0.2),
        PassingExchange,
        services={tokenize_service.SERVICE: lambda server: tokenize_service.register(callout, server)},
    )
    await server.start()
    await server.set_ready(ready=True)
    running = asyncio.create_task(server.run_until_stopped())
    try:
        async with grpc.aio.insecure_channel(server.address) as channel:
            yield channel
    finally:
        server.stop()
        await running
