"""A model server of tests: answers with the model it was asked for, what it saw, and usage.

`python -m tests.integration.model_upstream --port N`. A body with `"stream": true` is answered with events,
each written in two pieces, and `"n"` of them; anything else with one JSON document.
"""

import argparse
import asyncio
import hashlib
import json

from aiohttp import web

USAGE = {"prompt_tokens": 11, "completion_tokens": 5, "prompt_tokens_details": {"cached_tokens": 8}}


async def answer(request: web.Request) -> web.StreamResponse:
    raw = await request.read()
    try:
        body = json.loads(raw)
    except ValueError:
        body = {}
    model = body.get("model", "") if isinstance(body, dict) else ""
    seen = {
        "method": request.method,
        "headers": {name.lower(): value for name, value in request.headers.items()},
        "sha256": hashlib.sha256(raw).hexdigest(),
        "length": len(raw),
        "says": f'my "model": "{model}"',
    }
    if not (isinstance(body, dict) and body.get("stream")):
        return web.json_response({"model": model, "seen": seen, "usage": USAGE})
    response = web.StreamResponse(headers={"content-type": "text/event-stream"})
    await response.prepare(request)
    for number in range(body.get("n", 3)):
        event = f"data: {json.dumps({'model': model, 'number': number, 'says': seen['says']})}\n\n".encode()
        await response.write(event[:14])
        await asyncio.sleep(0.005)
        await response.write(event[14:])
    await response.write(f"data: {json.dumps({'model': model, 'usage': USAGE})}\n\ndata: [DONE]\n\n".encode())
    return response


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    app = web.Application(client_max_size=2**28)
    app.router.add_route("*", "/{path:.*}", answer)
    web.run_app(app, host="127.0.0.1", port=parser.parse_args().port, print=None)


if __name__ == "__main__":
    main()
