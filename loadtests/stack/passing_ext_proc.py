"""An ext_proc service that does nothing: what the cost of the chain is measured against.

`python -m loadtests.stack.passing_ext_proc --listen unix:/path` runs the chain's own server around an
exchange that lets everything pass. With `--carry` it answers a body as tokenext does, with as many bytes as
token ids take in the body and in the metadata, and without looking at it: what the wire costs by itself.
"""

import argparse
import asyncio
from typing import Final

import uvloop

from extproc.allocator import keep_large_blocks
from extproc.events import RequestReady
from extproc.exchange import PassingExchange
from extproc.huge_pages import use_huge_pages
from extproc.server import Server, ServerOptions
from extproc.verdict import PASS, Verdict
from extproc.wellknown import RECORD_KEY, RECORD_NAMESPACE

# Of a conversation in English with Qwen3's tokenizer: bytes of JSON body per id, and bytes of an id as JSON.
_BODY_BYTES_PER_ID: Final = 4.7
_JSON_BYTES_PER_ID: Final = 5.3
_BASE64_BYTES_PER_ID: Final = 16 / 3


class CarryingExchange(PassingExchange):
    """Adds white space and a text in the place of the ids."""

    async def decide(self, request: RequestReady) -> Verdict:
        if not request.body or not request.body_replaceable:
            return PASS
        ids = len(request.body) / _BODY_BYTES_PER_ID
        record = {"tokenIds": "A" * int(ids * _BASE64_BYTES_PER_ID)}
        return Verdict(
            body=request.body + b" " * int(ids * _JSON_BYTES_PER_ID),
            metadata={RECORD_NAMESPACE: {RECORD_KEY: record}},
        )


async def serve(listen: str, *, carry: bool) -> None:
    exchange = CarryingExchange if carry else PassingExchange
    server = Server(ServerOptions(listen=listen, drain_seconds=1.0), exchange)
    await server.start()
    use_huge_pages()  # as the chain's own services do
    await server.set_ready(ready=True)
    await server.run_until_stopped()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m loadtests.stack.passing_ext_proc", description=__doc__)
    parser.add_argument("--listen", required=True, help="unix:/path or host:port")
    parser.add_argument("--carry", action="store_true", help="answer with as many bytes as ids would take")
    options = parser.parse_args()
    keep_large_blocks()  # as the chain's own services do
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(options.listen, carry=options.carry))


if __name__ == "__main__":
    main()
