"""HTTP/1.1 by hand, for what no client library sends: a pause between headers and body, broken JSON."""

import asyncio
import json
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

LIMIT_SECONDS = 30


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


async def exchange(
    url: str,
    body: bytes = b"",
    *,
    method: str = "POST",
    headers: dict[str, str] | None = None,
    pause_seconds: float = 0.0,
    leave_after_seconds: float | None = None,
) -> Answer | None:
    """One request on one connection. `pause_seconds` passes between headers and body.

    `leave_after_seconds`: close the connection that long after the request was sent, and return None.
    """
    parts = urlsplit(url)
    target = parts.path + (f"?{parts.query}" if parts.query else "")
    async with asyncio.timeout(LIMIT_SECONDS):
        reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
        try:
            lines = [f"{method} {target} HTTP/1.1", f"host: {parts.netloc}", "connection: close"]
            if body:
                lines += [f"content-length: {len(body)}", "content-type: application/json"]
            lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
            writer.write(("\r\n".join(lines) + "\r\n\r\n").encode())
            await writer.drain()
            if body:
                await asyncio.sleep(pause_seconds)
                writer.write(body)
                await writer.drain()
            if leave_after_seconds is not None:
                await asyncio.sleep(leave_after_seconds)
                return None
            return parse(await reader.read())
        finally:
            writer.close()


def parse(raw: bytes) -> Answer:
    head, _, body = raw.partition(b"\r\n\r\n")
    status_line, *header_lines = head.decode("latin-1").split("\r\n")
    headers = {
        name.lower(): value.strip() for name, _, value in (line.partition(":") for line in header_lines)
    }
    if headers.get("transfer-encoding") == "chunked":
        body = unchunked(body)
    return Answer(int(status_line.split()[1]), headers, body)


def unchunked(data: bytes) -> bytes:
    pieces = []
    while data:
        size, _, data = data.partition(b"\r\n")
        length = int(size, 16)
        pieces.append(data[:length])
        data = data[length + 2 :]
    return b"".join(pieces)
