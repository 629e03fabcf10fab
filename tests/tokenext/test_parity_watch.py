import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from extproc.token_metadata import TokenIds
from tests.tokenext.models import fake_model
from tokenext.catalog import Catalog, Model
from tokenext.live_catalog import LiveCatalog
from tokenext.openai import Api
from tokenext.oracle import FakeOracle, Oracle, OracleError
from tokenext.parity import Finding, OracleKind, ParityRecord, Standing, Verification
from tokenext.parity_watch import ParityWatch
from tokenext.probe_corpus import Probe
from tokenext.profiles import InexactReason

PROBES = [Probe(1, "hi", Api.COMPLETION, {"prompt": "hi"})]
RIGHT = TokenIds.pack([256, *b"hi"])
WRONG = TokenIds.pack([1])
DOUBT = InexactReason.PARITY


class Engine:
    """An engine whose answer a test changes, and which counts how often it is opened."""

    def __init__(self, answer: TokenIds | None) -> None:
        self.answer = answer
        self.opened: list[str] = []

    @asynccontextmanager
    async def open(self, asked: Verification) -> AsyncIterator[Oracle]:
        self.opened.append(asked.engine)
        yield FakeOracle(self._answer)

    def _answer(self, api: Api, body: bytes) -> TokenIds:
        if self.answer is None:
            raise OracleError("not there")
        return self.answer


class Told:
    def __init__(self) -> None:
        self.records: list[ParityRecord] = []
        self._news = asyncio.Event()

    def verified(self, record: ParityRecord) -> None:
        self.records.append(record)
        self._news.set()

    async def until(self, holds: Callable[[], bool]) -> None:
        async with asyncio.timeout(5):
            while not holds():
                self._news.clear()
                await self._news.wait()

    # As LiveCatalog's observer.
    def reloaded(self, catalog: Catalog) -> None: ...

    def reload_failed(self, problem: str) -> None: ...


def verified_model(name: str = "m", *, every: float | None = 0.01, at_start: bool = True) -> Model:
    asked = Verification(f"http://{name}", OracleKind.DYNAMO, name, every, at_start)
    return fake_model(name, verification=asked)


def doubt(live: LiveCatalog, name: str = "m") -> InexactReason | None:
    model = live.current().find(name)
    assert model is not None
    return model.doubt


@pytest.fixture
def told() -> Told:
    return Told()


async def test_a_mismatch_at_start_is_known_before_the_first_request(told):
    live = LiveCatalog(Catalog([verified_model(), fake_model("other")]), Catalog, told)
    async with ParityWatch(live, Engine(WRONG).open, told, probes=PROBES):
        assert doubt(live) is DOUBT
        assert doubt(live, "other") is None
        assert told.records[0].standing is Standing.MISMATCH


async def test_handoff_comes_back_after_a_clean_round(told):
    engine = Engine(WRONG)
    live = LiveCatalog(Catalog([verified_model()]), Catalog, told)
    async with ParityWatch(live, engine.open, told, probes=PROBES):
        engine.answer = RIGHT
        await told.until(lambda: told.records[-1].standing is Standing.CLEAN)
        assert doubt(live) is None


async def test_an_engine_that_is_not_there_changes_nothing_in_either_direction(told):
    engine = Engine(None)
    live = LiveCatalog(Catalog([verified_model()]), Catalog, told)
    async with ParityWatch(live, engine.open, told, probes=PROBES):
        assert doubt(live) is None
        engine.answer = WRONG
        await told.until(lambda: doubt(live) is DOUBT)
        engine.answer = None
        before = len(told.records)
        await told.until(lambda: len(told.records) > before + 1)
        assert told.records[-1].report.finding is Finding.INCONCLUSIVE
        assert doubt(live) is DOUBT


async def test_a_model_may_be_left_out_at_start_and_asked_only_then(told):
    engine = Engine(WRONG)
    models = [verified_model("late", at_start=False), verified_model("once", every=None)]
    live = LiveCatalog(Catalog(models), Catalog, told)
    async with ParityWatch(live, engine.open, told, probes=PROBES):
        assert engine.opened == ["http://once"]
        await told.until(lambda: engine.opened.count("http://late") > 2)
        assert engine.opened.count("http://once") == 1


async def test_a_reload_keeps_the_doubt_and_asks_at_once(told):
    engine = Engine(WRONG)
    first = verified_model(every=None, at_start=True)
    reloaded = Catalog([replace(first, verification=replace(first.verification, at_start=False))])
    live = LiveCatalog(Catalog([first]), lambda: reloaded, told)
    async with ParityWatch(live, engine.open, told, probes=PROBES) as watch:
        engine.answer = RIGHT
        assert await live.reload()
        assert doubt(live) is DOUBT
        watch.follow()
        await told.until(lambda: told.records[-1].standing is Standing.CLEAN)
        assert doubt(live) is None


async def test_a_reload_without_verification_ends_the_doubt(told):
    live = LiveCatalog(Catalog([verified_model()]), lambda: Catalog([fake_model()]), told)
    async with ParityWatch(live, Engine(WRONG).open, told, probes=PROBES) as watch:
        assert doubt(live) is DOUBT
        await live.reload()
        watch.follow()
        assert doubt(live) is None


async def test_a_round_that_hangs_is_ended(told):
    @asynccontextmanager
    async def hanging(asked: Verification) -> AsyncIterator[Oracle]:
        await asyncio.sleep(60)
        yield FakeOracle(lambda api, body: RIGHT)

    live = LiveCatalog(Catalog([verified_model(every=None)]), Catalog, told)
    async with ParityWatch(live, hanging, told, probes=PROBES, round_seconds=0.01):
        assert told.records[0].report.problem == "a round takes more than 0.01 s"


async def test_no_task_outlives_the_watch(told):
    live = LiveCatalog(Catalog([verified_model()]), Catalog, told)
    before = asyncio.all_tasks()
    async with ParityWatch(live, Engine(RIGHT).open, told, probes=PROBES) as watch:
        watch.follow()
        assert len(asyncio.all_tasks()) > len(before)
    assert asyncio.all_tasks() == before
