"""Soak: what it sends follows from its seed, and it would notice a body that is not what was sent."""

import asyncio
import hashlib
import json
import random
from collections import Counter

import pytest

from loadtests.soak.ask import Ask, Manner, draw
from loadtests.soak.clients import Client, CorruptedError, LostError
from loadtests.soak.growth import growth_of
from loadtests.stack.chain import Chain, ChainOptions, Part, Upstream

BODY = b"what was sent"


def test_the_same_number_is_the_same_request_and_another_is_another():
    assert draw(7, "m", 1) == draw(7, "m", 1)
    assert draw(7, "m", 1).body != draw(7, "m", 2).body
    assert draw(7, "m", 1).body != draw(8, "m", 1).body


def test_all_manners_sizes_and_paths_come():
    asks = [draw(number, "m", 1) for number in range(2_000)]
    assert set(Counter(ask.manner for ask in asks)) == set(Manner)
    assert {ask.path for ask in asks} == {"/v1/chat/completions", "/anything"}
    assert min(len(ask.body) for ask in asks) < 10
    assert max(len(ask.body) for ask in asks) > 500_000
    assert all(json.loads(ask.body)["model"] == "m" for ask in asks if ask.path.startswith("/v1"))


class Server:
    """Answers each request on its port with the next of some raw answers."""

    def __init__(self, *answers: bytes) -> None:
        self._answers = list(answers)

    async def __aenter__(self):
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def __aexit__(self, *_):
        self._server.close()

    async def _serve(self, reader, writer):
        while self._answers and await reader.read(65_536):
            writer.write(self._answers.pop(0))
            await writer.drain()
        writer.close()


def answer(report: object, status: int = 200) -> bytes:
    body = json.dumps(report).encode()
    return b"HTTP/1.1 %d X\r\ncontent-length: %d\r\n\r\n%b" % (status, len(body), body)


def report(**changes: object) -> dict[str, object]:
    return {
        "sha256": hashlib.sha256(BODY).hexdigest(),
        "length": len(BODY),
        "headers": {"x-soak-id": "soak-1"},
        **changes,
    }


async def asked(*answers: bytes, events: int = 0) -> None:
    async with Server(*answers) as url, Client(url) as client:
        await client.ask(Ask(1, Manner.STREAM if events else Manner.PLAIN, "/anything", BODY, events))


async def test_an_answer_that_tells_of_the_same_body_is_right():
    await asked(answer(report()))


@pytest.mark.parametrize(
    "changes",
    [{"sha256": "0" * 64}, {"length": 3}, {"headers": {"x-soak-id": "soak-2"}}],
    ids=["another body", "another length", "another request"],
)
async def test_an_answer_to_something_else_is_a_corruption(changes):
    with pytest.raises(CorruptedError):
        await asked(answer(report(**changes)))


async def test_an_error_or_a_broken_connection_is_a_loss():
    with pytest.raises(LostError, match="status 503"):
        await asked(answer({}, status=503))
    with pytest.raises(LostError):
        await asked(b"HTTP/1.1 200 OK\r\ncontent-length: 50\r\n\r\n{")


async def test_events_that_are_missing_or_out_of_order_are_a_corruption():
    def stream(*events: object) -> bytes:
        body = (
            b"".join(b"data: %b\n\n" % json.dumps(event).encode() for event in events) + b"data: [DONE]\n\n"
        )
        return b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)

    await asked(stream(report(), {"event": 1}, {"event": 2}), events=3)
    for events in ([{"event": 2}], [{"event": 2}, {"event": 1}], []):
        with pytest.raises(CorruptedError):
            await asked(stream(report(), *events), events=3)


def memory(*, leak=0.0, spike=0.0, step=0.0):
    """Two minutes of looks at 100 MB that leaks so much in each, with spikes that get higher each time."""
    return [
        (
            number * 500,
            100 + leak * number + (spike * number if number % 3 else 0) + (step if number > 40 else 0),
        )
        for number in range(60)
    ]


def test_spikes_that_get_higher_are_no_growth():
    assert growth_of(memory(spike=20)).share == pytest.approx(0, abs=0.001)


def test_a_leak_below_spikes_is_found():
    growth = growth_of(memory(spike=20, leak=0.2))
    assert growth.share > 0.08
    assert growth.exceeds(0.05)
    assert growth.mb_per_1000_requests == pytest.approx(0.4, rel=0.01)


def test_memory_that_is_never_given_back_is_growth():
    assert growth_of(memory(step=30)).share > 0.2
    assert growth_of(memory(step=30)).exceeds(0.05)


def scattered(leak: float) -> list[tuple[int, float]]:
    source = random.Random(7)
    return [(number * 500, 250 + leak * number + source.gauss(0, 25)) for number in range(120)]


def test_readings_that_scatter_excuse_no_growth_beyond_the_bound():
    growth = growth_of(scattered(0.4))
    assert growth.exceeds(0.05)
    assert not growth.exceeds(growth.share)
    assert growth_of(scattered(0.0)).error > 0.01


@pytest.mark.parametrize("points", [[], [(1, 5.0)], [(1, 5.0), (2, 9.0)], [(7, 5.0)] * 20])
def test_of_too_few_readings_nothing_is_said(points):
    assert growth_of(points).share == 0


@pytest.mark.integration
@pytest.mark.parametrize("manner", Manner)
async def test_every_manner_passes_plain_envoy(plain, manner):
    async with Client(plain.url) as client:
        for number in range(3):
            events = 4 if manner in (Manner.STREAM, Manner.LEAVES_READING) else 0
            await client.ask(Ask(number, manner, "/anything", b"x" * 70_000, events))


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    options = ChainOptions(workers=1, upstream=Upstream.ECHO, tokenext=Part.ABSENT, epp=Part.ABSENT)
    with Chain(options, logs=tmp_path_factory.mktemp("chain")) as chain:
        yield chain
