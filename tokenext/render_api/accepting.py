"""Takes a listening socket's connections as fast as they come."""

import asyncio
import socket
from collections.abc import Callable
from typing import Final

__all__ = ["Acceptor"]

_AT_ONCE: Final = 1024  # in one round of the event loop: others wait for it
_OUT_OF_FILES_SECONDS: Final = 1.0


class Acceptor:
    """All that wait, in each round of the event loop, until it is closed.

    uvloop 0.23's own server takes one connection a round (libuv does). Under load a round takes tens of
    milliseconds, so that a new connection waits for seconds behind others, and neither deadlines nor bounds
    know of it. Owns no socket: who gave it closes it.
    """

    def __init__(self, listener: socket.socket, protocol: Callable[[], asyncio.Protocol]) -> None:
        listener.setblocking(False)
        self._listener = listener
        self._protocol = protocol
        self._loop = asyncio.get_running_loop()
        self._opening: Final[set[asyncio.Task[object]]] = set()
        self._pause: asyncio.TimerHandle | None = None
        self._listen()

    def close(self) -> None:
        """Take no more. What was taken goes on."""
        self._loop.remove_reader(self._listener)
        if self._pause is not None:
            self._pause.cancel()

    def _listen(self) -> None:
        self._loop.add_reader(self._listener, self._accept)

    def _accept(self) -> None:
        for _ in range(_AT_ONCE):
            try:
                connection, _ = self._listener.accept()
            except BlockingIOError:
                return
            except ConnectionAbortedError:  # it has left again
                continue
            except OSError:  # no files are left: they stay in the queue, as they do when the process is busy
                self._loop.remove_reader(self._listener)
                self._pause = self._loop.call_later(_OUT_OF_FILES_SECONDS, self._listen)
                return
            connection.setblocking(False)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            opening = self._loop.create_task(self._open(connection))
            self._opening.add(opening)
            opening.add_done_callback(self._opening.discard)

    async def _open(self, connection: socket.socket) -> None:
        try:
            await self._loop.connect_accepted_socket(self._protocol, connection)
        except OSError:  # it has left meanwhile
            connection.close()
