"""How much of a request counts as work."""

import json
import time

import pytest

from tests.tokenext.models import fake_model
from tokenext.attempt import Attempt
from tokenext.catalog import Catalog
from tokenext.conversations import Conversations
from tokenext.engine import FakeEngine
from tokenext.openai import Api
from tokenext.pool import TokenizationPool
from tokenext.tokenization import Stopwatch
from tokenext.transformers_profile import TransformersProfile

LONG = "It was the best of times, it was the worst of times. " * 200


class QuickEngine(FakeEngine):
    quick = True


class NotingPool(TokenizationPool):
    """Does every job at once, and notes how large it was said to be."""

    def __init__(self) -> None:
        super().__init__(workers=1, max_queued=0, deadline_seconds=1)
        self.efforts: list[int | None] = []

    async def run(self, job, *, deadline_seconds=None, inline_bytes=None):
        self.efforts.append(inline_bytes)
        return job()


def body(*contents: str, **fields: object) -> bytes:
    messages = [{"role": "user", "content": content} for content in contents]
    return json.dumps({"model": "m", "messages": messages, **fields}).encode()


@pytest.fixture
def pool():
    pool = NotingPool()
    yield pool
    pool.close()


async def efforts(pool: NotingPool, *bodies: bytes, engine: FakeEngine | None = None) -> list[int | None]:
    plain = fake_model().profile
    profile = TransformersProfile(plain._templates, special_tokens={}, template_kwargs={})
    catalog = Catalog([fake_model("m", engine=engine or QuickEngine(), profile=profile)])
    conversations = Conversations(1 << 20)
    for each in bodies:
        attempt = Attempt(Stopwatch(time.perf_counter))
        await attempt.tokenize(Api.CHAT, each, catalog, pool, conversations=conversations)
    return pool.efforts


async def test_a_message_counts_as_its_text_and_something_more(pool):
    text = body("a", "b")
    assert await efforts(pool, text) == [len(text) + 2 * 256]


async def test_of_a_conversation_that_goes_on_what_is_known_counts_less(pool):
    first, second = body(LONG), body(LONG, "And?")
    new, again = await efforts(pool, first, second)
    assert new == len(first) + 256
    assert again is not None
    known = len(first.partition(b'"messages": ')[2].removesuffix(b"]}")) + 256
    assert again == len(second) + 2 * 256 - known + known // 4


async def test_of_another_salt_nothing_is_known(pool):
    first, second = body(LONG, cache_salt="one"), body(LONG, "And?", cache_salt="two")
    assert await efforts(pool, first, second) == [len(first) + 256, len(second) + 2 * 256]


async def test_an_engine_that_is_not_quick_always_takes_a_thread(pool):
    assert await efforts(pool, body("a"), engine=FakeEngine()) == [None]
