"""Opens the oracle of a kind at a URL."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Final

import aiohttp

from tokenext.oracle import Oracle
from tokenext.oracles.dynamo import DynamoOracle
from tokenext.oracles.http import EngineClient
from tokenext.oracles.vllm import VllmOracle
from tokenext.parity import OracleKind

__all__ = ["open_oracle"]

_KINDS: Final[Mapping[OracleKind, type[DynamoOracle | VllmOracle]]] = {
    OracleKind.DYNAMO: DynamoOracle,
    OracleKind.VLLM: VllmOracle,
}


@asynccontextmanager
async def open_oracle(kind: OracleKind, url: str) -> AsyncIterator[Oracle]:
    """An oracle that lives as long as the block."""
    async with aiohttp.ClientSession() as session:
        yield _KINDS[kind](EngineClient(session, url))
