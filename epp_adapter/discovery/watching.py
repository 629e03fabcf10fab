"""Keeping one kind of Kubernetes objects in step with the API server: list, then watch, and begin again.

However a watch ends (its time is over, 410 Gone, a broken or silent connection), the next step is a list:
that is always right, and with a watch of minutes it is rare. What was known stays until the list is there.
"""

import asyncio
import logging
import random
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final, NoReturn, Protocol

from epp_adapter.discovery.pool_state import Change, PoolState, Resource

__all__ = ["ApiError", "FakeKubeApi", "KubeApi", "WatchEvent", "WatchOptions", "Watcher"]

_log = logging.getLogger(__name__)

_NOT_FOUND: Final = 404
_GONE: Final = 410
_FORBIDDEN: Final = frozenset({401, 403})
_BOOKMARK: Final = "BOOKMARK"
_ERROR: Final = "ERROR"


class ApiError(Exception):
    """The API server refused, or could not be talked to. `status` is 0 where there was no answer."""

    def __init__(self, status: int, detail: str) -> None:
        super().__init__(f"{status}: {detail}" if status else detail)
        self.status = status


class KubeApi(Protocol):
    """The Kubernetes API, as far as we need it. Both raise ApiError."""

    async def list(self, path: str, query: Mapping[str, str]) -> tuple[list[Any], str]:
        """All objects (every page), and the version from which to watch."""
        ...

    def watch(self, path: str, query: Mapping[str, str]) -> AsyncIterator[dict[str, Any]]:
        """The events as they come: {"type", "object"}. Ends where the server ends it."""
        ...


class FakeKubeApi:
    """Lists what it is given and watches what is put into its queue: the fake of the seam above.

    An ApiError in `events` is raised there, and None ends the watch.
    """

    def __init__(self, *objects: Any) -> None:
        self.objects = list(objects)
        self.refusal: ApiError | None = None
        self.lists: list[Mapping[str, str]] = []
        self.watches: list[Mapping[str, str]] = []
        self.events: asyncio.Queue[dict[str, Any] | ApiError | None] = asyncio.Queue()

    async def list(self, path: str, query: Mapping[str, str]) -> tuple[list[Any], str]:
        del path
        self.lists.append(query)
        if self.refusal is not None:
            raise self.refusal
        return list(self.objects), str(len(self.lists))

    async def watch(self, path: str, query: Mapping[str, str]) -> AsyncIterator[dict[str, Any]]:
        del path
        self.watches.append(query)
        while (event := await self.events.get()) is not None:
            if isinstance(event, ApiError):
                raise event
            yield event


class WatchEvent(StrEnum):
    """What happened to a watch; a metric label."""

    LISTED = "listed"
    ABSENT = "absent"  # the cluster does not have this kind
    EXPIRED = "expired"  # 410: our version is too old
    ENDED = "ended"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class WatchOptions:
    """`watch_seconds` is how long one watch lasts, and so how often all is listed anew. A failure is waited
    out for `base_seconds`, doubled up to `max_seconds`.
    """

    watch_seconds: float = 300.0
    base_seconds: float = 0.5
    max_seconds: float = 30.0


@dataclass(slots=True)
class Watcher:
    """Follows one resource into a PoolState. `selector` is asked before every list; None: there is nothing to
    list yet. `synced` is set after the first list, or once the kind is known to be absent. `changed` is
    called after every change of the state.
    """

    resource: Resource
    path: str
    api: KubeApi
    state: PoolState
    options: WatchOptions
    selector: Callable[[], Mapping[str, str] | None]
    observe: Callable[[Resource, WatchEvent], None] = lambda *_: None
    changed: Callable[[], None] = lambda: None
    synced: asyncio.Event = field(default_factory=asyncio.Event)
    _changed: asyncio.Event = field(default_factory=asyncio.Event)
    _failures: int = 0

    def restart(self) -> None:
        """List anew: the selector is another one now."""
        self._changed.set()

    async def run(self) -> NoReturn:
        while True:
            self._changed.clear()
            selector = self.selector()
            if selector is None:
                self.state.replace(self.resource, ())
                await self._changed.wait()
                continue
            following = asyncio.create_task(self._follow_once(selector))
            restarted = asyncio.create_task(self._changed.wait())
            try:
                await asyncio.wait((following, restarted), return_when=asyncio.FIRST_COMPLETED)
                if following.done():
                    following.result()
            finally:
                following.cancel()
                restarted.cancel()
                await asyncio.gather(following, restarted, return_exceptions=True)

    async def _follow_once(self, selector: Mapping[str, str]) -> None:
        """One list, one watch, and the wait that is due then. Raises nothing the API server can cause."""
        started = asyncio.get_running_loop().time()
        try:
            objects, version = await self.api.list(self.path, selector)
            self.state.replace(self.resource, objects)
            self.synced.set()
            self.changed()
            self.observe(self.resource, WatchEvent.LISTED)
            await self._watch(selector, version)
            self.observe(self.resource, WatchEvent.ENDED)
            # A server that ends every watch at once must not be asked without pause.
            healthy = asyncio.get_running_loop().time() - started > self.options.base_seconds
            self._failures = 0 if healthy else self._failures + 1
        except ApiError as error:
            self._note(error)
        await asyncio.sleep(self._pause())

    async def _watch(self, selector: Mapping[str, str], version: str) -> None:
        query = {
            **selector,
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": version,
            "timeoutSeconds": str(max(1, round(self.options.watch_seconds))),
        }
        async for event in self.api.watch(self.path, query):
            kind, changed = event.get("type"), event.get("object")
            if kind == _ERROR:
                raise ApiError(_status_code(changed), "the watch was ended with an error")
            if kind == _BOOKMARK:
                continue
            try:
                change = Change(str(kind))
            except ValueError:
                continue  # of a later Kubernetes
            self._failures = 0
            self.state.apply(self.resource, change, changed)
            self.changed()

    def _note(self, error: ApiError) -> None:
        if error.status == _NOT_FOUND:
            self.state.replace(self.resource, ())
            self.synced.set()
            self.changed()
            self._failures = 30  # as rarely as may be: a kind that is missing seldom comes
            self.observe(self.resource, WatchEvent.ABSENT)
        elif error.status == _GONE:
            self._failures = min(self._failures + 1, 2)
            self.observe(self.resource, WatchEvent.EXPIRED)
        else:
            self._failures += 1
            self.observe(self.resource, WatchEvent.FAILED)
            advice = "; the service account may not list and watch it" if error.status in _FORBIDDEN else ""
            _log.warning("%s: cannot be followed: %s%s", self.resource, error, advice)

    def _pause(self) -> float:
        if self._failures == 0:
            return 0.0
        doublings = min(self._failures - 1, 30)
        longest = min(self.options.base_seconds * 2.0**doublings, self.options.max_seconds)
        return longest * (0.5 + random.random() / 2)  # noqa: S311  # spreads the adapters of a cluster


def _status_code(status: Any) -> int:
    code = status.get("code") if isinstance(status, dict) else None
    return code if isinstance(code, int) else 0
