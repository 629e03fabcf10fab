"""Reads Envoy's access log: what the proxy itself saw of an exchange."""

import json
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Self

from loadtests.stack.envoy_config import access_log_fields

__all__ = ["AccessLogEntry", "AccessLogReader"]

POLL_SECONDS: Final = 0.02
_OWN_FIELDS: Final = frozenset(access_log_fields())


@dataclass(frozen=True, slots=True)
class AccessLogEntry:
    """One exchange. `token_count` is that of the record in dynamic metadata, None where there was no record.

    `destination` is what the EPP answered, `upstream` is who served; None where there was none. `extra` holds
    what ChainOptions.access_log_fields asked for.
    """

    request_id: str
    status: int
    upstream: str | None
    destination: str | None
    token_count: int | None
    engine_exact: bool
    flags: str | None
    details: str | None
    duration_ms: int
    extra: Mapping[str, object] = field(default_factory=dict)

    @classmethod
    def parse(cls, line: str) -> Self:
        """Read one line; raises ValueError or KeyError if it is not one of ours."""
        fields = json.loads(line)
        count = fields.get("token_count")
        return cls(
            request_id=fields["request_id"],
            status=int(fields["status"]),
            upstream=fields.get("upstream"),
            destination=fields.get("destination"),
            token_count=None if count is None else int(count),
            engine_exact=fields.get("engine_exact") in (True, "true"),
            flags=fields.get("flags"),
            details=fields.get("details"),
            duration_ms=int(fields["duration_ms"]),
            extra={name: value for name, value in fields.items() if name not in _OWN_FIELDS},
        )


class AccessLogReader:
    """The access log at `path`, which Envoy may still be writing."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def entries(self) -> list[AccessLogEntry]:
        """Every exchange that has ended and was written."""
        if not self.path.exists():
            return []
        text = self.path.read_text(encoding="utf-8")
        # The last line may be half written.
        return [AccessLogEntry.parse(line) for line in text[: text.rfind("\n") + 1].splitlines()]

    def wait_for(self, request_ids: Collection[str], *, seconds: float = 5.0) -> dict[str, AccessLogEntry]:
        """The entries of these requests, by id. Envoy writes late; what is not there in time is missing."""
        deadline = time.monotonic() + seconds
        while True:
            found = {each.request_id: each for each in self.entries() if each.request_id in request_ids}
            if len(found) == len(set(request_ids)) or time.monotonic() > deadline:
                return found
            time.sleep(POLL_SECONDS)
