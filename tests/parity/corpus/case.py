"""A request without its model: the same case is asked of every model."""

import json
from dataclasses import dataclass

__all__ = ["CHAT", "COMPLETION", "Case"]

CHAT = "/v1/chat/completions"
COMPLETION = "/v1/completions"


@dataclass(frozen=True, slots=True)
class Case:
    """`text` is a JSON object as a client might spell it, without `model`. `kind` says what it is about."""

    name: str
    kind: str
    path: str
    text: str

    def body(self, model: str, extra: str = "") -> str:
        """The request's JSON text, asked of `model`; `extra` is more members, as JSON text."""
        head = f'{{"model": {json.dumps(model)}' + (f", {extra}" if extra else "")
        rest = self.text.lstrip().removeprefix("{")
        return head + ("" if rest.lstrip().startswith("}") else ", ") + rest
