"""Capacity: the search ends near the true limit, and a rate is offered whether answers come or not."""

import socket
import threading
import time

import pytest

from loadtests.capacity.offered import offer, slices
from loadtests.capacity.search import Search


def searched(limit: float, **options) -> Search:
    search = Search(100.0, **options)
    for _ in range(50):
        if (rate := search.next_rate) is None:
            return search
        search.tell(rate, carried=rate <= limit)
    raise AssertionError("the search does not end")


@pytest.mark.parametrize("limit", [7.0, 60.0, 100.0, 101.0, 730.0, 5_000.0])
def test_the_rate_found_is_carried_and_close_to_the_limit(limit):
    best = searched(limit).best
    assert best <= limit < best * 1.1 * 1.0001


def test_a_limit_far_below_the_start_is_no_rate_at_all():
    assert searched(3.0).best == 0.0


def test_the_search_ends_where_nothing_is_too_much():
    assert searched(1e9, most=3_000.0).best == 3_000.0


def test_texts_differ_from_their_first_character_on():
    texts = slices("abcdefgh" * 100, 50, 40)
    assert len({text[:6] for text in texts}) == 40


@pytest.fixture
def slow_server():
    """Answers each request after 50 ms, one connection at a time for each of its own."""
    listening = socket.create_server(("127.0.0.1", 0))

    def answer(connection):
        with connection:
            while connection.recv(65_536):
                time.sleep(0.05)
                connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")

    def serve():
        while True:
            try:
                connection, _ = listening.accept()
            except OSError:
                return
            threading.Thread(target=answer, args=(connection,), daemon=True).start()

    threading.Thread(target=serve, daemon=True).start()
    yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    listening.shutdown(socket.SHUT_RDWR)
    listening.close()


def get(connection, number):
    return connection.get("/").status


def test_latency_counts_from_when_a_request_was_due(slow_server):
    """One connection carries 20 requests a second; 60 are offered."""
    offered = offer(slow_server, get, rate=60, seconds=0.5, connections=1)
    assert offered.latencies[0] >= 0.05
    assert offered.latencies[-1] > 0.5
    assert offered.failed + len(offered.latencies) == 30


def test_a_rate_that_can_be_carried_is_answered_whole(slow_server):
    offered = offer(slow_server, get, rate=40, seconds=0.5, connections=16)
    assert (offered.failed, len(offered.latencies)) == (0, 20)


def test_nobody_there_is_a_failure_of_every_request():
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
    offered = offer(f"http://127.0.0.1:{port}", get, rate=20, seconds=0.2, connections=2)
    assert (offered.failed, offered.latencies) == (4, ())
