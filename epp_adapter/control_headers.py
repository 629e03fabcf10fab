"""What a client asks of the picker, by header; names and precedence are the reference picker's."""

from dataclasses import dataclass
from typing import Final

from extproc import wellknown
from extproc.events import Headers

__all__ = ["REMOVED_HEADERS", "ControlHeaders", "read_control_headers"]

# Nothing of this reaches a model server; what the chain sets itself is set after the removal.
REMOVED_HEADERS: Final = (*wellknown.CHAIN_OWNED_HEADERS, *wellknown.PICKER_HEADERS)


@dataclass(frozen=True, slots=True)
class ControlHeaders:
    """Empty strings where nothing was asked. All are words of the client's: never to be logged.

    `objective` names an InferenceObjective. `model_rewrite` is the model to ask the model server for.
    `test_selection` is a comma list of endpoints, the conformance suite's.
    """

    strategy: str = ""
    objective: str = ""
    model_rewrite: str = ""
    test_selection: str = ""


def read_control_headers(headers: Headers) -> ControlHeaders:
    return ControlHeaders(
        strategy=headers.get(wellknown.STRATEGY_HEADER, "").strip(),
        objective=_first(headers, wellknown.OBJECTIVE_HEADERS),
        model_rewrite=_first(headers, wellknown.MODEL_REWRITE_HEADERS),
        test_selection=headers.get(wellknown.TEST_SELECTION_HEADER, "").strip(),
    )


def _first(headers: Headers, names: tuple[str, ...]) -> str:
    """The current name wins over the older one, also where its value is empty."""
    return next((headers[name].strip() for name in names if name in headers), "")
