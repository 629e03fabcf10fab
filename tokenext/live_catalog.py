"""The catalog of the moment, and its reload."""

import asyncio
from collections.abc import Callable
from typing import Final, Protocol

from extproc.settings_file import SettingsError
from tokenext.catalog import Catalog

__all__ = ["LiveCatalog", "ReloadObserver"]


class ReloadObserver(Protocol):
    """Takes note of reloads. Never raises."""

    def reloaded(self, catalog: Catalog) -> None:
        """Another catalog is in use."""
        ...

    def reload_failed(self, problem: str) -> None:
        """The settings cannot be used, and why; the last good catalog stays."""
        ...


class LiveCatalog:
    """Owns the catalog in use. Exchanges read `current` once each."""

    def __init__(self, first: Catalog, load: Callable[[], Catalog], observer: ReloadObserver) -> None:
        """`load` reads the settings again; it blocks, and raises SettingsError."""
        self._current = first
        self._load: Final = load
        self._observer: Final = observer
        self._turn: Final = asyncio.Lock()

    def current(self) -> Catalog:
        return self._current

    async def reload(self) -> None:
        """Load in a thread, then switch. A bad file leaves the catalog as it is. One reload at a time."""
        async with self._turn:
            try:
                self._current = await asyncio.to_thread(self._load)
            except SettingsError as error:
                self._observer.reload_failed(str(error))
            else:
                self._observer.reloaded(self._current)
