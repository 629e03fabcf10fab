"""A model server that only reports what reached it: the upstream of tests in which just the bytes matter.

`python -m loadtests.stack.echo_server --port N`. Any path and method is answered with JSON
`{"path", "method", "sha256", "length", "headers"}` of the request as received.
What a client asks by query: `?sse=5&interval_ms=100` streams five events instead, that far apart; the report
is the first of them. `?delay_ms=300` waits before the response headers, `?status=503` sets the status,
`?brief=1` answers `{}` without looking at the body, for measurements of what is in front.
"""

import argparse
import asyncio
import hashlib
import json
from typing import Final

from aiohttp import web

LOOPBACK: Final = "127.0.0.1"
MAX_BODY_BYTES: Final = 1024 * 1024 * 1024
MAX_EVENTS: Final = 100_000
STATUS: Final = web.AppKey("status", int)


async def answer(request: web.Request) -> web.StreamResponse:
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
        status = int(request.query.get("status", request.app[STATUS]))
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


def application(status: int = 200) -> web.Application:
    """`status` is that of every answer whose request asks for no other."""
    app = web.Application(client_max_size=MAX_BODY_BYTES)
    app[STATUS] = status
    app.router.add_route("*", "/{path:.*}", answer)
    return app


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m loadtests.stack.echo_server", description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--status", type=int, default=200, help="of every answer that is not asked another")
    options = parser.parse_args()
    web.run_app(application(options.status), host=LOOPBACK, port=options.port, print=None)


if __name__ == "__main__":
    main()
