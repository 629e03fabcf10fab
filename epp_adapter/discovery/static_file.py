"""Endpoints from a YAML file, read again whenever its content changes."""

import asyncio
import logging
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import Final, NoReturn

import msgspec

from epp_adapter.endpoints import AddressError, Endpoint, EndpointSnapshot, canonical_address
from extproc.settings_file import SettingsError, decode

__all__ = ["EndpointFile", "ReloadOutcome"]

_log = logging.getLogger(__name__)
_MAX_U64: Final = 2**64 - 1
_MAX_U64_DIGITS: Final = 20


class ReloadOutcome(StrEnum):
    """What came of a changed endpoints file; a metric label."""

    APPLIED = "applied"
    REFUSED = "refused"


class _Entry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    address: str
    # A u64. As a decimal string it survives tools that read numbers as doubles.
    dynamo_instance_id: int | str | None = None
    labels: dict[str, str] = {}


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    endpoints: list[_Entry]


class EndpointFile:
    """An EndpointSource. It owns the snapshot; `watch` is the only one that replaces it.

    Raises SettingsError when built from a file that cannot be used. Later a file that cannot be used is
    logged and counted once for each content it has, and the last good endpoints stay.
    """

    def __init__(self, path: Path, observe: Callable[[ReloadOutcome], None]) -> None:
        self._path = path
        self._observe = observe
        self._text: bytes | None = _read(path)
        self._snapshot = _parse(self._text, str(path))

    def current(self) -> EndpointSnapshot:
        return self._snapshot

    async def watch(self, poll_seconds: float) -> NoReturn:
        """Look for a changed file for ever.

        The content is compared, not the modification time: that sees both a file written in place within one
        tick of the clock and the symlinks that Kubernetes swaps under a mounted ConfigMap.
        """
        while True:
            await asyncio.sleep(poll_seconds)
            await self.poll()

    async def poll(self) -> None:
        """Look once. File and parser run in a thread: a large file takes the parser many milliseconds."""
        try:
            text = await asyncio.to_thread(_read, self._path)
        except SettingsError as error:
            if self._text is not None:
                self._text = None
                self._refuse(error)
            return
        if text == self._text:
            return
        self._text = text
        try:
            self._snapshot = await asyncio.to_thread(_parse, text, str(self._path))
        except SettingsError as error:
            self._refuse(error)
            return
        _log.info("%s: reloaded, %d endpoints", self._path, len(self._snapshot.endpoints))
        self._observe(ReloadOutcome.APPLIED)

    def _refuse(self, error: SettingsError) -> None:
        _log.error("%s; keeping the last %d endpoints", error, len(self._snapshot.endpoints))
        self._observe(ReloadOutcome.REFUSED)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise SettingsError(str(path), f"cannot be read: {error.strerror}") from None


def _parse(text: bytes, source: str) -> EndpointSnapshot:
    endpoints: list[Endpoint] = []
    addresses: set[str] = set()
    instances: set[int] = set()
    for index, entry in enumerate(decode(text, _File, source=source).endpoints):
        key = f"endpoints[{index}]"
        try:
            address = canonical_address(entry.address)
        except AddressError as error:
            raise SettingsError(source, str(error), f"{key}.address") from None
        instance = _instance_id(entry.dynamo_instance_id, source, f"{key}.dynamo_instance_id")
        if address in addresses:
            raise SettingsError(source, f"{address} stands here twice", f"{key}.address")
        if instance in instances:
            raise SettingsError(source, f"{instance} stands here twice", f"{key}.dynamo_instance_id")
        addresses.add(address)
        if instance is not None:
            instances.add(instance)
        endpoints.append(Endpoint(address, instance, labels=entry.labels))
    return EndpointSnapshot(tuple(endpoints))


def _instance_id(value: int | str | None, source: str, key: str) -> int | None:
    if value is None:
        return None
    if isinstance(value, str):
        if not (value.isascii() and value.isdigit() and len(value) <= _MAX_U64_DIGITS):
            raise SettingsError(source, "is not a decimal number of at most 20 digits", key)
        value = int(value)
    if not 0 <= value <= _MAX_U64:
        raise SettingsError(source, "is not in the range of an unsigned 64 bit integer", key)
    return value
