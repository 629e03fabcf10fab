"""An ext_proc service that lets everything pass: what the cost of the chain is measured against.

`python -m loadtests.stack.passing_ext_proc --listen unix:/path` runs the chain's own server around it.
"""

import argparse
import asyncio

import uvloop

from extproc.allocator import keep_large_blocks
from extproc.exchange import PassingExchange
from extproc.server import Server, ServerOptions


async def serve(listen: str) -> None:
    server = Server(ServerOptions(listen=listen, drain_seconds=1.0), PassingExchange)
    await server.start()
    await server.set_ready(ready=True)
    await server.run_until_stopped()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m loadtests.stack.passing_ext_proc", description=__doc__)
    parser.add_argument("--listen", required=True, help="unix:/path or host:port")
    keep_large_blocks()  # as the chain's own services do
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(parser.parse_args().listen))


if __name__ == "__main__":
    main()
