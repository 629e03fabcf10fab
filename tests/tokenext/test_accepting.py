"""Connections to the HTTP port are taken as fast as they come, also while the event loop is busy."""

import asyncio
import errno
import socket
import time
from threading import Thread

import uvloop

from tokenext.render_api import accepting
from tokenext.render_api.accepting import Acceptor
from tokenext.render_api.http_server import serve_http

CLIENTS = 60
ROUND_SECONDS = 0.01


async def hello(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
    await send({"type": "http.response.body", "body": b""})


def ask_all(port: int, answered: list[bytes]) -> None:
    """All connections are made and asked before the first answer is read."""
    opened = [socket.create_connection(("127.0.0.1", port), 20) for _ in range(CLIENTS)]
    for each in opened:
        each.sendall(b"GET / HTTP/1.1\r\nhost: t\r\nconnection: close\r\n\r\n")
    for each in opened:
        with each:
            answered.append(each.recv(100))


async def rounds_until_all_are_answered() -> int:
    """Of an event loop whose rounds take as long as they do under load."""
    loop = asyncio.get_running_loop()
    rounds, busy = 0, True

    def work() -> None:
        nonlocal rounds
        rounds += 1
        time.sleep(ROUND_SECONDS)
        if busy:
            loop.call_soon(work)

    async with serve_http(hello, "127.0.0.1", 0, drain_seconds=1) as port:
        answered: list[bytes] = []
        asking = Thread(target=ask_all, args=(port, answered))
        work()
        asking.start()
        await asyncio.to_thread(asking.join)
        busy = False
    assert [each[:12] for each in answered] == [b"HTTP/1.1 200"] * CLIENTS
    return rounds


def test_clients_do_not_wait_for_each_others_rounds_of_a_busy_event_loop():
    # uvloop's own server, which takes one connection a round, needs more rounds than there are clients.
    assert uvloop.run(rounds_until_all_are_answered()) < CLIENTS / 2


class Scarce(socket.socket):
    """A listener of a process that has no files left, for a while."""

    refusals = 1

    def accept(self):
        if self.refusals:
            self.refusals -= 1
            raise OSError(errno.EMFILE, "too many open files")
        return super().accept()


async def test_without_files_connections_wait_and_are_taken_later(monkeypatch):
    monkeypatch.setattr(accepting, "_OUT_OF_FILES_SECONDS", 0.05)
    made = asyncio.Event()

    class Taken(asyncio.Protocol):
        def connection_made(self, transport):
            made.set()
            transport.close()

    with Scarce() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        acceptor = Acceptor(listener, Taken)
        _, writer = await asyncio.open_connection(*listener.getsockname())
        async with asyncio.timeout(5):
            await made.wait()
        assert listener.refusals == 0
        acceptor.close()
        writer.close()
        await writer.wait_closed()


async def test_once_closed_it_takes_nobody():
    made = asyncio.Event()

    class Taken(asyncio.Protocol):
        def connection_made(self, transport):
            made.set()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        Acceptor(listener, Taken).close()
        _, writer = await asyncio.open_connection(*listener.getsockname())
        await asyncio.sleep(0.05)
        assert not made.is_set()
        writer.close()
        await writer.wait_closed()
