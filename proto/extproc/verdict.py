"""What a Session is told to do: with a request (Verdict), and with a piece of its response (ResponseEdit)."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

__all__ = ["NO_EDIT", "PASS", "JsonValue", "ResponseEdit", "Verdict"]

JsonValue = None | bool | int | float | str | list["JsonValue"] | dict[str, "JsonValue"]


@dataclass(frozen=True, slots=True)
class Verdict:
    """Let the request go on, changed like this.

    Removals happen before `set_headers`, so that a name may stand in both: a client's copy goes, ours stays.
    `body` None leaves the body untouched; the Session sets content-length to match a new one.
    `metadata` is namespace -> key -> value; Envoy keeps only namespaces its filter lists as receiving.
    """

    set_headers: Mapping[str, str] = field(default_factory=dict)
    remove_headers: tuple[str, ...] = ()
    body: bytes | None = None
    metadata: Mapping[str, Mapping[str, JsonValue]] = field(default_factory=dict)
    clear_route_cache: bool = False


@dataclass(frozen=True, slots=True)
class ResponseEdit:
    """Let a piece of the response go on, changed like this. Headers change on ResponseStarted only; removals
    happen first.
    """

    set_headers: Mapping[str, str] = field(default_factory=dict)
    remove_headers: tuple[str, ...] = ()
    body: bytes | None = None


PASS: Final = Verdict()
NO_EDIT: Final = ResponseEdit()
