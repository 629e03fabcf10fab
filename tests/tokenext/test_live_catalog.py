import asyncio
import threading

from extproc.settings_file import SettingsError
from tests.tokenext.models import fake_model
from tokenext.catalog import EMPTY_CATALOG, Catalog
from tokenext.live_catalog import LiveCatalog
from tokenext.profiles import InexactReason

OTHER = Catalog([fake_model("other")])


class Told:
    def __init__(self) -> None:
        self.catalogs: list[Catalog] = []
        self.problems: list[str] = []

    def reloaded(self, catalog: Catalog) -> None:
        self.catalogs.append(catalog)

    def reload_failed(self, problem: str) -> None:
        self.problems.append(problem)


async def test_a_reload_puts_the_new_catalog_in_use():
    told = Told()
    live = LiveCatalog(EMPTY_CATALOG, lambda: OTHER, told)
    assert live.current() is EMPTY_CATALOG
    await live.reload()
    assert live.current() is OTHER
    assert (told.catalogs, told.problems) == ([OTHER], [])


async def test_a_bad_reload_keeps_the_last_good_catalog_and_tells_why():
    def load() -> Catalog:
        raise SettingsError("t.yaml", "is missing", "models")

    told = Told()
    live = LiveCatalog(OTHER, load, told)
    await live.reload()
    assert live.current() is OTHER
    assert (told.catalogs, told.problems) == ([], ["t.yaml: models: is missing"])


async def test_reloads_run_one_after_another_and_off_the_event_loop():
    running: list[str] = []

    def load() -> Catalog:
        assert threading.current_thread() is not threading.main_thread()
        running.append("in")
        assert running.count("in") - running.count("out") == 1
        running.append("out")
        return OTHER

    live = LiveCatalog(EMPTY_CATALOG, load, Told())
    await asyncio.gather(*(live.reload() for _ in range(5)))
    assert running == ["in", "out"] * 5


async def test_a_doubt_shows_at_once_and_outlives_a_reload():
    live = LiveCatalog(OTHER, lambda: Catalog([fake_model("other"), fake_model("new")]), Told())
    live.doubt(frozenset({"other"}))
    assert [model.doubt for model in live.current().models] == [InexactReason.PARITY]
    assert await live.reload()
    assert [model.doubt for model in live.current().models] == [InexactReason.PARITY, None]
    live.doubt(frozenset())
    assert [model.doubt for model in live.current().models] == [None, None]


async def test_a_bad_reload_keeps_the_doubt():
    def load() -> Catalog:
        raise SettingsError("t.yaml", "is missing")

    live = LiveCatalog(OTHER, load, Told())
    live.doubt(frozenset({"other"}))
    assert not await live.reload()
    assert [model.doubt for model in live.current().models] == [InexactReason.PARITY]
