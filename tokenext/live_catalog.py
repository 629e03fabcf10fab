"""The catalog of the moment: its reload, and which of its models are in doubt."""

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
    """Owns the catalog in use. Exchanges read `current` once each. All calls are made on one event loop."""

    def __init__(self, first: Catalog, load: Callable[[], Catalog], observer: ReloadObserver) -> None:
        """`load` reads the settings again; it blocks, and raises SettingsError."""
        self._loaded = first
        self._doubted: frozenset[str] = frozenset()
        self._current = first
        self._load: Final = load
        self._observer: Final = observer
        self._turn: Final = asyncio.Lock()

    def current(self) -> Catalog:
        return self._current

    def doubt(self, names: frozenset[str]) -> None:
        """Doubt the parity of these models and of no others, from the next exchange on.

        A reload does not end a doubt: the new files are as unproved as the old ones were wrong.
        """
        if names != self._doubted:
            self._doubted = names
            self._current = self._loaded.doubting(names)

    async def reload(self) -> bool:
        """Load in a thread, then switch. A bad file leaves the catalog as it is. One reload at a time.

        Tells whether another catalog is in use.
        """
        async with self._turn:
            try:
                self._loaded = await asyncio.to_thread(self._load)
            except SettingsError as error:
                self._observer.reload_failed(str(error))
                return False
            else:
                self._current = self._loaded.doubting(self._doubted) if self._doubted else self._loaded
                self._observer.reloaded(self._current)
                return True
