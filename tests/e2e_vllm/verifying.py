"""`tokenext verify` at the same vLLM, by both of the ways that it knows to ask one."""

from datetime import datetime
from pathlib import Path
from typing import Final

import aiohttp

from tests.e2e_vllm.model import NAME
from tokenext.handoff import Handoff
from tokenext.loading import load_model
from tokenext.oracles.http import EngineClient, Reply
from tokenext.oracles.vllm import VllmOracle
from tokenext.parity import Report
from tokenext.probe_corpus import PROBES
from tokenext.settings import ModelSettings
from tokenext.verification import verify

__all__ = ["reports"]


class _WithoutRender(EngineClient):
    """As a vLLM without --enable-scale-out answers."""

    async def post(self, path: str, body: bytes) -> Reply:
        return Reply(404) if path.endswith("/render") else await super().post(path, body)


_WAYS: Final = {"render": EngineClient, "/tokenize": _WithoutRender}


async def reports(bundle: Path, vllm_url: str) -> dict[str, Report]:
    """A round of probes by each way."""
    settings = ModelSettings(NAME, str(bundle), handoff=Handoff.VLLM)
    model = load_model(settings, "model", source="e2e-vllm", now=datetime.now).model
    found: dict[str, Report] = {}
    async with aiohttp.ClientSession() as session:
        for way, client in _WAYS.items():
            oracle = VllmOracle(client(session, vllm_url, seconds=60.0))
            found[way] = await verify(model, oracle, PROBES, engine_model=NAME)
    return found
