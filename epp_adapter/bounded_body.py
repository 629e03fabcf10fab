"""Reading an HTTP response that comes from somewhere else, and so may be of any size."""

import aiohttp

__all__ = ["bounded_body"]


async def bounded_body(response: aiohttp.ClientResponse, limit: int) -> bytes:
    """The body, cut off after `limit` bytes. Raises aiohttp.ClientError where it breaks off."""
    body = bytearray()
    async for piece in response.content.iter_any():
        body += piece
        if len(body) >= limit:
            break
    return bytes(body[:limit])
