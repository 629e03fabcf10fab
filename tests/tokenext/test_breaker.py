"""Circuit breakers: what fails again and again is left alone, and is tried again after a while."""

import asyncio
import json
import threading

import pytest

from extproc.events import Headers, RequestReady, StaticMetadata
from extproc.verdict import PASS
from tests.tokenext.models import chat_body, fake_model
from tokenext.breaker import Breaker, BreakerOptions, Breakers, BreakerState
from tokenext.callout import Callout, Prompt
from tokenext.catalog import Catalog
from tokenext.engine import EngineError, FakeEngine
from tokenext.exchange import ExchangeOptions, OnOversize, TokenizeExchange
from tokenext.observer import RecordingObserver
from tokenext.pool import TokenizationPool

OPTIONS = BreakerOptions(failures=3, open_seconds=1.0, max_open_seconds=8.0)


@pytest.fixture
def changes():
    return []


@pytest.fixture
def breaker(changes):
    return Breaker(OPTIONS, changes.append)


def fail(breaker, now, times=1):
    for _ in range(times):
        assert breaker.admit(now)
        breaker.failed(now)


class TestBreaker:
    def test_failures_in_a_row_open_it(self, breaker, changes):
        fail(breaker, 0.0, times=2)
        assert changes == []
        fail(breaker, 0.0)
        assert changes == [BreakerState.OPEN]
        assert not breaker.admit(0.5)

    def test_a_success_ends_a_row(self, breaker):
        fail(breaker, 0.0, times=2)
        breaker.succeeded()
        fail(breaker, 0.0, times=2)
        assert breaker.state is BreakerState.CLOSED

    def test_after_its_time_one_request_is_the_probe_and_the_others_still_pass_by(self, breaker):
        fail(breaker, 0.0, times=3)
        assert breaker.admit(1.0)
        assert not breaker.admit(1.0)
        breaker.succeeded()
        assert breaker.state is BreakerState.CLOSED
        assert breaker.admit(1.0)

    def test_each_probe_that_fails_doubles_the_time_up_to_its_limit(self, breaker):
        fail(breaker, 0.0, times=3)
        now = 0.0
        for seconds in (1.0, 2.0, 4.0, 8.0, 8.0):
            assert not breaker.admit(now + seconds - 0.01)
            now += seconds
            fail(breaker, now)

    def test_a_success_makes_the_next_opening_a_short_one_again(self, breaker):
        fail(breaker, 0.0, times=3)
        fail(breaker, 1.0)
        assert breaker.admit(3.0)
        breaker.succeeded()
        fail(breaker, 3.0, times=3)
        assert breaker.admit(4.0)

    def test_a_probe_whose_client_leaves_makes_the_next_request_the_probe(self, breaker):
        fail(breaker, 0.0, times=3)
        assert breaker.admit(1.0)
        breaker.left(1.0)
        assert breaker.admit(1.0)

    def test_who_leaves_while_it_is_closed_tells_nothing(self, breaker, changes):
        fail(breaker, 0.0, times=2)
        assert breaker.admit(0.0)
        breaker.left(0.0)
        fail(breaker, 0.0)
        assert changes == [BreakerState.OPEN]

    def test_a_late_success_of_an_earlier_request_closes_it_too(self, breaker):
        assert breaker.admit(0.0)
        fail(breaker, 0.0, times=3)
        breaker.succeeded()
        assert breaker.admit(0.1)

    def test_late_failures_of_earlier_requests_do_not_prolong_it(self, breaker):
        for _ in range(6):
            assert breaker.admit(0.0)
        for _ in range(6):
            breaker.failed(0.0)
        assert breaker.admit(1.0)

    def test_zero_failures_never_open_it(self, changes):
        breaker = Breaker(BreakerOptions(failures=0), changes.append)
        fail(breaker, 0.0, times=100)
        assert changes == []


class BrokenEngine(FakeEngine):
    """Fails while it is broken, and waits while it is held."""

    def __init__(self) -> None:
        self.broken = False
        self.calls = 0
        self.gate = threading.Event()
        self.gate.set()

    def encode(self, text, *, add_special_tokens, isolation=""):
        self.calls += 1
        self.gate.wait(10)
        if self.broken:
            raise EngineError("the tokenizer is gone")
        return super().encode(text, add_special_tokens=add_special_tokens)


class Bench:
    """Exchanges on a pool, with two models of which one may break."""

    def __init__(self) -> None:
        self.now = 0.0
        self.engine = BrokenEngine()
        self.observer = RecordingObserver()
        self.changes = []
        self.pool = TokenizationPool(workers=4, max_queued=8, deadline_seconds=0.2)
        self.catalog = Catalog([fake_model("m", engine=self.engine), fake_model("other")])
        self.breakers = Breakers(OPTIONS, lambda *change: self.changes.append(change))

    def exchange(self):
        return TokenizeExchange(
            catalog=lambda: self.catalog,
            pool=self.pool,
            observer=self.observer,
            options=ExchangeOptions("tokenext", OnOversize.PASS),
            clock=lambda: self.now,
            breakers=self.breakers,
        )

    async def send(self, body=None, model="m"):
        request = RequestReady(
            headers=Headers({":method": "POST", ":path": "/v1/chat/completions"}),
            body=body or json.dumps(chat_body(model=model)).encode(),
            metadata=StaticMetadata(),
        )
        return await self.exchange().decide(request)

    @property
    def reasons(self):
        return [record.reason for record in self.observer.records]


@pytest.fixture
async def bench():
    bench = Bench()
    yield bench
    bench.engine.gate.set()
    bench.pool.close()


class TestExchanges:
    async def test_a_tokenizer_that_fails_is_not_asked_again_and_requests_pass(self, bench):
        bench.engine.broken = True
        verdicts = [await bench.send() for _ in range(6)]
        assert verdicts == [PASS] * 6
        assert bench.engine.calls == 3
        assert bench.reasons == ["engine_failed"] * 3 + ["breaker_open"] * 3
        assert bench.changes == [("m", BreakerState.OPEN)]

    async def test_other_models_are_tokenized_meanwhile(self, bench):
        bench.engine.broken = True
        for _ in range(4):
            await bench.send()
        assert (await bench.send(model="other")).metadata

    async def test_a_probe_brings_it_back(self, bench):
        bench.engine.broken = True
        for _ in range(4):
            await bench.send()
        bench.engine.broken, bench.now = False, 1.0
        assert (await bench.send()).metadata
        assert (await bench.send()).metadata
        assert [state for _, state in bench.changes] == ["open", "probing", "closed"]

    async def test_lateness_opens_it_as_failure_does(self, bench):
        bench.engine.gate.clear()
        await asyncio.gather(*(bench.send() for _ in range(3)))
        await bench.send()
        assert bench.reasons == ["deadline"] * 3 + ["breaker_open"]

    async def test_requests_that_cannot_be_tokenized_open_nothing(self, bench):
        for _ in range(5):
            await bench.send(body=b'{"model": "m", "messages": []}')
        assert bench.changes == []
        assert "engine_failed" not in bench.reasons

    async def test_an_exception_that_nobody_expects_counts_as_a_failure(self, bench):
        bench.engine.encode = None  # calling it is a TypeError
        for _ in range(3):
            with pytest.raises(TypeError):
                await bench.send()
        assert await bench.send() == PASS

    async def test_a_cancelled_probe_leaves_the_way_for_the_next(self, bench):
        bench.engine.broken = True
        for _ in range(3):
            await bench.send()
        bench.engine.broken, bench.now = False, 1.0
        bench.engine.gate.clear()
        probe = asyncio.create_task(bench.send())
        await asyncio.sleep(0.01)
        probe.cancel()
        with pytest.raises(asyncio.CancelledError):
            await probe
        bench.engine.gate.set()
        assert (await bench.send()).metadata

    async def test_a_caller_with_little_time_opens_nothing(self, bench):
        bench.engine.gate.clear()
        callout = Callout(
            catalog=lambda: bench.catalog,
            pool=bench.pool,
            observer=bench.observer,
            clock=lambda: bench.now,
            max_body_bytes=1_000,
            breakers=bench.breakers,
        )
        prompt = Prompt("/v1/chat/completions", json.dumps(chat_body(model="m")).encode())
        for _ in range(5):
            assert await callout.answer([prompt], deadline_seconds=0.01) == ["deadline"]
        assert bench.changes == []

    async def test_a_probe_that_a_reload_overtakes_leaves_the_breaker_closed(self, bench):
        bench.engine.broken = True
        for _ in range(3):
            await bench.send()
        bench.now = 1.0
        bench.engine.gate.clear()
        probe = asyncio.create_task(bench.send())
        await asyncio.sleep(0.01)
        bench.breakers.close_all()
        bench.engine.gate.set()
        await probe
        assert bench.changes[-1] == ("m", BreakerState.CLOSED)
        assert bench.breakers.state("m") is BreakerState.CLOSED

    async def test_a_reload_closes_it(self, bench):
        bench.engine.broken = True
        for _ in range(4):
            await bench.send()
        bench.engine.broken = False
        bench.breakers.close_all()
        assert (await bench.send()).metadata
