"""An HTTP port on the process's own event loop, by uvicorn."""

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Final

import uvicorn

from tokenext.render_api.accepting import Acceptor

__all__ = ["serve_http"]

_BACKLOG: Final = 2048


class _Server(uvicorn.Server):
    """With an acceptor of ours for its sockets."""

    _acceptors: tuple[Acceptor, ...] = ()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets=[])
        self._acceptors = tuple(Acceptor(each, self._protocol) for each in sockets or ())

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for acceptor in self._acceptors:
            acceptor.close()
        await super().shutdown(sockets)

    def _protocol(self) -> asyncio.Protocol:
        protocol: Any = self.config.http_protocol_class
        made: asyncio.Protocol = protocol(
            config=self.config, server_state=self.server_state, app_state=self.lifespan.state
        )
        return made

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Signals are the process's own."""
        yield


@asynccontextmanager
async def serve_http(application: Any, host: str, port: int, *, drain_seconds: float) -> AsyncIterator[int]:
    """Serve an ASGI application until the block is left; gives the port. Raises OSError for a taken address.

    At the end open requests have `drain_seconds`.
    """
    with _listening(host, port) as listener:
        server = _Server(
            uvicorn.Config(
                application,
                http="httptools",
                lifespan="off",
                ws="none",
                log_config=None,
                access_log=False,
                server_header=False,
                date_header=False,
                timeout_graceful_shutdown=max(1, round(drain_seconds)),
            )
        )
        serving = asyncio.create_task(server.serve([listener]))
        try:
            yield listener.getsockname()[1]
        finally:
            server.should_exit = True
            await serving


def _listening(host: str, port: int) -> socket.socket:
    host = host.strip("[]")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(_BACKLOG)  # from here on clients wait, and are not refused
    except OSError:
        listener.close()
        raise
    return listener
