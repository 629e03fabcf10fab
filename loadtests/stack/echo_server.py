"""A model server that only reports what reached it: the upstream of tests in which just the bytes matter.

`python -m loadtests.stack.echo_server --port N`. Any path and method is answered with JSON
`{"path", "method", "sha256", "length", "headers"}` of the request as received.
What a client asks by query: `?sse=5&interval_ms=100` streams five events instead, that far apart; the report
is the first of them. `?delay_ms=300` waits before the response headers, `?status=503` sets the status,
`?brief=1` answers `{}` without looking at the body, for measurements of what is in front.
How often each `x-soak-id` has arrived is answered at `/__seen`, as JSON `{id: times}`; `/__status?status=500`
makes that the status of all answers from then on.
"""

import argparse
import asyncio
import hashlib
import json
from dataclasses import dataclass, field
from typing import Final

from aiohttp import web

LOOPBACK: Final = "127.0.0.1"
MAX_BODY_BYTES: Final = 1024 * 1024 * 1024
MAX_EVENTS: Final = 100_000


@dataclass(slots=True)
class State:
    """`status` of answers that are not asked another; `seen`: how often each x-soak-id arrived."""

    status: int = 200
    seen: dict[str, int] = field(default_factory=dict)


STATE: Final = web.AppKey("state", State)


async def answer(request: web.Request) -> web.StreamResponse:
    state = request.app[STATE]
    if request.path == "/__seen":
        return web.json_response(state.seen)
    if request.path == "/__status":
        state.status = int(request.query["status"])
        return web.json_response({})
    if soak_id := request.headers.get("x-soak-id"):
        state.seen[soak_id] = state.seen.get(soak_id, 0) + 1
    body = await request.read()
    if request.query.get("brief") == "1":
        return web.json_response({})
    report = {
        "method": request.method,
        "path": request.path,
        "sha256": hashlib.sha256(body).hexdigest(),
        "length": len(body),
        "headers": {name.lower(): value for name, value in request.headers.items()},
    }
    try:
        events = int(request.query.get("sse", "0"))
        interval = float(request.query.get("interval_ms", "0")) / 1000
        delay = float(request.query.get("delay_ms", "0")) / 1000
        status = int(request.query.get("status", state.status))
    except ValueError:
        return web.json_response({"error": "sse, interval_ms, delay_ms and status are numbers"}, status=400)
    await asyncio.sleep(delay)
    if events <= 0:
        return web.json_response(report, status=status)
    return await _stream(request, report, min(events, MAX_EVENTS), interval, status)


async def _stream(
    request: web.Request, report: dict[str, object], events: int, interval: float, status: int
) -> web.StreamResponse:
    response = web.StreamResponse(status=status, headers={"content-type": "text/event-stream"})
    await response.prepare(request)
    for number in range(events):
        if number:
            await asyncio.sleep(interval)
        event = report if number == 0 else {"event": number}
        await response.write(b"data: " + json.dumps(event).encode() + b"\n\n")
    await response.write(b"data: [DONE]\n\n")
    await response.write_eof()
    return response


def application() -> web.Application:
    app = web.Application(client_max_size=MAX_BODY_BYTES)
    app[STATE] = State()
    app.router.add_route("*", "/{path:.*}", answer)
    return app


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m loadtests.stack.echo_server", description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    web.run_app(application(), host=LOOPBACK, port=parser.parse_args().port, print=None)


if __name__ == "__main__":
    main()
