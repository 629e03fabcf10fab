"""A small Kubernetes API server on loopback: list and watch as JSON, and ways to be a bad one.

It knows the paths of `kube_objects`. Lists come in pages; watches begin after a version, send bookmarks where
asked for, and answer 410 where that version is forgotten.
"""

import asyncio
import json
from contextlib import asynccontextmanager

from aiohttp import web

BOOKMARK_SECONDS = 0.02


class Kind:
    """The objects at one path, their history, and how the server behaves there."""

    def __init__(self):
        self.objects = {}
        self.version = 1
        self.history = []
        self.changed = asyncio.Condition()
        self.status = 200  # of every answer
        self.forgotten = 0  # versions up to this one are gone
        self.in_stream = False  # whether 410 comes as an event instead of as the status
        self.lists = []
        self.watches = []
        self.open_watches = set()

    async def put(self, thing):
        name = thing["metadata"]["name"]
        await self._record("MODIFIED" if name in self.objects else "ADDED", thing)
        self.objects[name] = thing

    async def delete(self, name):
        await self._record("DELETED", self.objects.pop(name))

    async def _record(self, kind, thing):
        async with self.changed:
            self.version += 1
            self.history.append((self.version, {"type": kind, "object": thing}))
            self.changed.notify_all()

    async def forget(self):
        """All versions so far: whoever watches from one of them gets 410."""
        async with self.changed:
            self.version += 1
            self.forgotten = self.version - 1
            self.history.clear()

    def cut(self):
        """Break every open watch off."""
        for response in tuple(self.open_watches):
            response.transport.abort()


class FakeKube:
    def __init__(self):
        self.kinds = {}
        self.headers = []

    def __getitem__(self, path):
        return self.kinds.setdefault(path, Kind())

    async def answer(self, request):
        self.headers.append(request.headers)
        kind = self.kinds.get(request.path)
        if kind is None:
            return web.json_response({"kind": "Status", "code": 404}, status=404)
        if kind.status != 200:
            return web.json_response({"kind": "Status", "code": kind.status}, status=kind.status)
        if request.query.get("watch") == "true":
            kind.watches.append(dict(request.query))
            return await self._watch(request, kind)
        kind.lists.append(dict(request.query))
        return self._list(request, kind)

    @staticmethod
    def _list(request, kind):
        names = sorted(kind.objects)
        start, limit = int(request.query.get("continue") or 0), min(int(request.query.get("limit", 2)), 2)
        metadata = {"resourceVersion": str(kind.version)}
        if start + limit < len(names):
            metadata["continue"] = str(start + limit)
        items = [kind.objects[name] for name in names[start : start + limit]]
        return web.json_response({"kind": "List", "metadata": metadata, "items": items})

    async def _watch(self, request, kind):
        seen = int(request.query["resourceVersion"])
        gone = seen <= kind.forgotten
        if gone and not kind.in_stream:
            return web.json_response({"kind": "Status", "code": 410}, status=410)
        response = web.StreamResponse()
        response.transport = request.transport
        await response.prepare(request)
        if gone:
            await self._send(response, {"type": "ERROR", "object": {"kind": "Status", "code": 410}})
            return response
        kind.open_watches.add(response)
        try:
            await self._stream(request, kind, response, seen)
        except ConnectionError:
            pass
        finally:
            kind.open_watches.discard(response)
        return response

    async def _stream(self, request, kind, response, seen):
        deadline = asyncio.get_running_loop().time() + float(request.query.get("timeoutSeconds", "60"))
        while asyncio.get_running_loop().time() < deadline:
            for version, event in tuple(kind.history):
                if version > seen:
                    seen = version
                    await self._send(response, event)
            try:
                async with asyncio.timeout(BOOKMARK_SECONDS), kind.changed:
                    await kind.changed.wait_for(lambda: kind.version > seen)  # noqa: B023  # awaited here
                    seen = seen if kind.history else kind.version
            except TimeoutError:
                bookmark = {"metadata": {"resourceVersion": str(kind.version)}}
                await self._send(response, {"type": "BOOKMARK", "object": bookmark})

    @staticmethod
    async def _send(response, event):
        """In two pieces, so that no reader may rely on lines coming whole."""
        line = json.dumps(event).encode() + b"\n"
        await response.write(line[:7])
        await response.write(line[7:])


@asynccontextmanager
async def fake_kube():
    """The server, and its URL."""
    kube = FakeKube()
    app = web.Application()
    app.router.add_get("/{path:.*}", kube.answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield kube, f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()
