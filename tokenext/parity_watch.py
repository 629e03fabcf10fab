"""Asks the engines again and again, and doubts the models whose ids they contradict."""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Final, Protocol, Self

from tokenext.catalog import Model
from tokenext.live_catalog import LiveCatalog
from tokenext.oracle import Oracle
from tokenext.parity import (
    ParityRecord,
    Report,
    Standing,
    Verification,
    handoff_allowed,
    next_standing,
)
from tokenext.probe_corpus import PROBES, Probe
from tokenext.verification import verify

__all__ = ["OpenOracle", "ParityObserver", "ParityWatch"]

OpenOracle = Callable[[Verification], AbstractAsyncContextManager[Oracle]]

_ROUND_SECONDS: Final = 60.0


class ParityObserver(Protocol):
    def verified(self, record: ParityRecord) -> None:
        """Take note of a round. Never raises."""
        ...


class ParityWatch:
    """Owns what is known of each model's parity, and one task for each model with a `verification`.

    Used as `async with`; its tasks end with the block.
    """

    def __init__(
        self,
        live: LiveCatalog,
        open_oracle: OpenOracle,
        observer: ParityObserver,
        *,
        probes: Sequence[Probe] = PROBES,
        round_seconds: float = _ROUND_SECONDS,
    ) -> None:
        self._live = live
        self._open_oracle = open_oracle
        self._observer = observer
        self._probes = probes
        self._round_seconds = round_seconds
        self._standings: dict[str, Standing] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        """Ask for every model that wants it at start, all at once, and return when that is done."""
        models = self._models()
        await asyncio.gather(
            *(self._round(model, asked) for model, asked in models if asked.at_start),
        )
        for model, asked in models:
            self._begin(model, asked, now=False)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        tasks = self._end_tasks()
        await asyncio.gather(*tasks, return_exceptions=True)

    def follow(self) -> None:
        """Go over to the catalog that was just loaded. Doubted models are asked about at once."""
        self._end_tasks()
        models = self._models()
        names = {model.name for model, _ in models}
        self._standings = {name: known for name, known in self._standings.items() if name in names}
        self._apply()
        for model, asked in models:
            doubted = not handoff_allowed(self._standings.get(model.name, Standing.UNKNOWN))
            self._begin(model, asked, now=asked.at_start or doubted)

    def _models(self) -> list[tuple[Model, Verification]]:
        models = self._live.current().models
        return [(model, model.verification) for model in models if model.verification is not None]

    def _begin(self, model: Model, asked: Verification, *, now: bool) -> None:
        task = asyncio.create_task(self._watch(model, asked, now=now))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _end_tasks(self) -> list["asyncio.Task[None]"]:
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        return tasks

    async def _watch(self, model: Model, asked: Verification, *, now: bool) -> None:
        if now:
            await self._round(model, asked)
        while asked.every_seconds is not None:
            await asyncio.sleep(asked.every_seconds)
            await self._round(model, asked)

    async def _round(self, model: Model, asked: Verification) -> None:
        try:
            async with asyncio.timeout(self._round_seconds), self._open_oracle(asked) as oracle:
                report = await verify(model, oracle, self._probes, engine_model=asked.engine_model)
        except TimeoutError:
            report = Report((), f"a round takes more than {self._round_seconds:g} s")
        before = self._standings.get(model.name, Standing.UNKNOWN)
        standing = self._standings[model.name] = next_standing(before, report.finding)
        self._apply()
        self._observer.verified(ParityRecord(model.name, before, standing, report))

    def _apply(self) -> None:
        self._live.doubt(
            frozenset(name for name, known in self._standings.items() if not handoff_allowed(known))
        )
