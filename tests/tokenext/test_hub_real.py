"""The hub's real client against a small hub of our own: what it asks for, and what it never asks for."""

import asyncio
import hashlib
import json
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

pytestmark = pytest.mark.integration

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub:
    """org/name with a model's files and weights; `asked` are the paths of the requests."""

    def __init__(self, files: dict[str, bytes]) -> None:
        self.files = files
        self.asked: list[str] = []
        self.url = ""

    def app(self) -> web.Application:
        app = web.Application(middlewares=[self._note])
        app.router.add_get("/api/models/org/name/revision/{revision:.*}", self._info)
        app.router.add_get("/api/models/org/name/tree/{revision:.*}", self._tree)
        app.router.add_get("/api/models/org/name", self._info)
        app.router.add_route("*", "/org/name/resolve/{revision}/{path:.*}", self._file)
        return app

    @web.middleware
    async def _note(self, request: web.Request, handler: object) -> web.StreamResponse:
        self.asked.append(request.path)
        return await handler(request)

    async def _info(self, request: web.Request) -> web.Response:
        if request.match_info.get("revision", "main") not in ("main", COMMIT):
            return web.json_response({}, status=404, headers={"X-Error-Code": "RevisionNotFound"})
        siblings = [{"rfilename": name} for name in self.files]
        return web.json_response({"id": "org/name", "sha": COMMIT, "siblings": siblings, "tags": []})

    async def _tree(self, request: web.Request) -> web.Response:
        return web.json_response(
            [
                {"type": "file", "path": name, "size": len(content), "oid": self._tag(content)}
                for name, content in self.files.items()
            ]
        )

    async def _file(self, request: web.Request) -> web.Response:
        content = self.files.get(request.match_info["path"])
        if content is None:
            return web.Response(status=404, headers={"X-Error-Code": "EntryNotFound"})
        headers = {"ETag": f'"{self._tag(content)}"', "X-Repo-Commit": COMMIT}
        return web.Response(body=content, headers=headers)

    @staticmethod
    def _tag(content: bytes) -> str:
        return hashlib.sha1(content).hexdigest()


@pytest.fixture
def files(model_dir: Path) -> dict[str, bytes]:
    own = {path.name: path.read_bytes() for path in model_dir.iterdir()}
    return {**own, "model.safetensors": b"weights", "README.md": b"readme"}


@pytest.fixture
async def hub(files: dict[str, bytes]) -> AsyncIterator[Hub]:
    hub = Hub(files)
    async with TestServer(hub.app(), host="127.0.0.1") as server:
        hub.url = str(server.make_url("")).rstrip("/")
        yield hub


async def bundle(hub_url: str, source: str, output: Path) -> tuple[int, str]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tokenext", "bundle", source, "-o", str(output), "--tokenizer", "file"),
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
        env={
            **{name: value for name, value in os.environ.items() if not name.startswith("HF_")},
            "HF_ENDPOINT": hub_url,
            "HF_HOME": str(output.parent / "cache"),
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_DISABLE_XET": "1",
        },
    )
    _, told = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode is not None
    return process.returncode, told.decode()


async def test_a_branch_is_pinned_and_no_weights_are_fetched(hub, tmp_path):
    status, told = await bundle(hub.url, "org/name@main", tmp_path / "b")
    assert status == 0, told
    origin = json.loads((tmp_path / "b" / "bundle.json").read_text())["origin"]
    assert (origin["hub"], origin["revision"]) == ("org/name", COMMIT)
    assert origin["files"].keys() == {"tokenizer.json", "tokenizer_config.json", "config.json"}
    assert any(path.endswith(f"{COMMIT}/tokenizer.json") for path in hub.asked)
    assert not any("safetensors" in path or "README" in path for path in hub.asked)


async def test_a_revision_that_is_not_there_is_one_line(hub, tmp_path):
    status, told = await bundle(hub.url, "org/name@nowhere", tmp_path / "b")
    assert (status, told.count("\n")) == (2, 1)
    assert told.startswith("tokenext: SOURCE: org/name@nowhere does not exist on the hub: check the revision")


async def test_a_hub_that_is_not_there_is_one_line(tmp_path):
    status, told = await bundle("http://127.0.0.1:9", "org/name", tmp_path / "b")
    assert (status, told) == (
        2,
        "tokenext: SOURCE: org/name is no directory, and the hub cannot be reached\n",
    )
