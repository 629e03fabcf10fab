"""`make overload`: what the client sees is what there was, and every broken promise is told."""

import asyncio
import json
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from loadtests.overload.client import UNANSWERED, Answer, Client
from loadtests.overload.judging import Overload, bounds, figures, summed_up
from tokenext.declined import SkipReason
from tokenext.render_api.errors import of_declined

GOOD = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}"
BUSY = b"HTTP/1.1 503 Busy\r\nRetry-After: 1\r\ncontent-length: 4\r\n\r\nbusy"


@asynccontextmanager
async def serving(answer):
    """`answer` gives the bytes for a request's body, in pieces, or None to hang up."""
    seen = []

    async def serve(reader, writer):
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                length = int(head.lower().partition(b"content-length: ")[2].split()[0])
                body = await reader.readexactly(length)
                seen.append(body)
                pieces = await answer(body)
                if pieces is None:
                    return
                for piece in pieces:
                    writer.write(piece)
                    await asyncio.sleep(0.001)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1], seen
    finally:
        server.close()


def client(port, **options) -> Client:
    return Client(
        "127.0.0.1", port, "/x", lambda number: b"%d" % number, **{"most_connections": 100, **options}
    )


async def test_requests_go_out_at_their_rate_whether_answers_come_or_not():
    async def answer(_):
        await asyncio.sleep(0.3)
        return [GOOD]

    async with serving(answer) as (port, seen), client(port) as asking:
        begun = asyncio.get_running_loop().time()
        answers = await asking.offer(rate=100, seconds=0.2, patience=5)
        took = asyncio.get_running_loop().time() - begun
    assert [each.status for each in answers] == [200] * 20
    assert sorted(map(int, seen)) == list(range(20))
    assert took < 2  # one after the other would take six seconds
    assert min(each.seconds for each in answers) >= 0.3


async def test_an_answer_in_pieces_is_one_and_a_refusal_says_why():
    async def answer(body):
        return [BUSY] if body == b"1" else [GOOD[:10], GOOD[10:-1], GOOD[-1:]]

    async with serving(answer) as (port, _), client(port) as asking:
        answers = await asking.offer(rate=50, seconds=0.06, patience=5)
    assert [(each.status, each.retry_after, each.body) for each in answers] == [
        (200, None, b""),
        (503, "1", b"busy"),
        (200, None, b""),
    ]


@pytest.mark.parametrize("server", ["hangs up", "says nothing", "has no connection left"])
async def test_what_is_not_answered_is_told_as_that(server):
    async def answer(_):
        if server == "hangs up":
            return None
        await asyncio.sleep(1)
        return [GOOD]

    most = 0 if server.startswith("has") else 100
    async with serving(answer) as (port, _), client(port, most_connections=most) as asking:
        (answered,) = await asking.offer(rate=1, seconds=1, patience=0.2)
    assert answered.status == UNANSWERED


async def test_a_server_is_saturated_by_as_many_requests_as_there_are_connections():
    open_now = most_open = 0

    async def answer(_):
        nonlocal open_now, most_open
        open_now += 1
        most_open = max(most_open, open_now)
        await asyncio.sleep(0.01)
        open_now -= 1
        return [GOOD]

    async with serving(answer) as (port, _), client(port) as asking:
        answers = await asking.saturate(connections=5, seconds=0.2, patience=5)
    assert most_open == 5
    assert len(answers) > 20
    assert {each.status for each in answers} == {200}


def refused(reason: SkipReason | None = None, **changes) -> Answer:
    message = "too many requests" if reason is None else of_declined(reason).refusal.message
    body = json.dumps({"error": {"message": message}}).encode()
    return replace(Answer(503, 0.1, retry_after="1", body=body), **changes)


KEPT = Overload(
    capacity=10,
    times=4,
    seconds=1,
    latest=2.25,
    answers=[
        *[Answer(200, 2.2)] * 6,
        *[refused()] * 30,
        *[refused(SkipReason.QUEUE_FULL)] * 3,
        refused(SkipReason.DEADLINE),
    ],
    counted={"too_many_open": 30, "queue_full": 3, "deadline": 1},
    tokenized=6,
)


def missed(seen: Overload) -> list[str]:
    return [name for name, ratio in bounds(seen, 0.5).items() if not ratio.holds]


def test_promises_that_are_kept_are_told_in_one_line():
    assert missed(KEPT) == []
    assert summed_up(KEPT, []) == (
        "overload: ok: 40/s offered for 1 s where 10/s can be done: 6 x 200 (60% of capacity), 34 x 503 "
        "(1 deadline, 3 queue_full, 30 too_many_open), 0 others, 0 without an answer, the latest answer "
        "after 2.20 s of 2.25 s"
    )
    assert figures(KEPT)["answers"] == {200: 6, 503: 34}


@pytest.mark.parametrize(
    ("broken", "word"),
    [
        ({"answers": [*KEPT.answers, Answer(UNANSWERED, 10)]}, "without an answer"),
        ({"answers": [*KEPT.answers, Answer(500, 0.1)]}, "neither"),
        ({"answers": [*KEPT.answers, refused(retry_after=None)]}, "neither"),
        ({"answers": [*KEPT.answers[:-1], refused(SkipReason.DEADLINE, seconds=2.3)]}, "later"),
        ({"answers": [*KEPT.answers, Answer(200, 2.3)], "tokenized": 7}, "later"),
        ({"counted": {"too_many_open": 33, "deadline": 1}}, "503s by which"),
        ({"tokenized": 7}, "200s by which"),
        ({"capacity": 13}, "answers with ids"),
    ],
)  # fmt: skip
def test_a_promise_that_is_broken_is_named(broken, word):
    (name,) = missed(replace(KEPT, **broken))
    assert word in name
    assert f"MISSED: {name}" in summed_up(KEPT, [name])
