"""Asking the model server for another model than the client asked for, and hiding that from the client.

Needs bodies. Where the filter does not show them, what was configured cannot be done: the stream ends with
FAILED_PRECONDITION and the setting to change, rather than with the wrong model's answer.
"""

from collections.abc import Callable
from dataclasses import dataclass
from random import random
from typing import Final

from epp_adapter.pool_rules import NO_RULES, RuleSource
from epp_adapter.request_model import RequestBody, read_request_body
from extproc.errors import BadRequestError, BodyTooLargeError, PeerProtocolError
from extproc.events import BodyMode, RequestReady
from extproc.wellknown import MODEL_REWRITE_HEADERS

__all__ = ["ModelRewriting", "Rewritten"]

_REQUEST_MODES: Final = "BUFFERED or FULL_DUPLEX_STREAMED"


@dataclass(frozen=True, slots=True)
class Rewritten:
    """`body` asks for `served` where the client's asked for `asked`."""

    asked: str
    served: str
    body: bytes


@dataclass(frozen=True, slots=True)
class ModelRewriting:
    """`random` is from [0, 1). `require_model`: a body that is no JSON object with a model is 400, as in the
    reference picker; otherwise it passes, and the model server has its say.
    """

    rules: RuleSource = NO_RULES
    random: Callable[[], float] = random
    require_model: bool = False

    def rewrite(self, request: RequestReady, wanted: str) -> Rewritten | None:
        """`wanted` is the model that a header asks for, else empty. None: the body stays as it is.

        Raises BadRequestError, BodyTooLargeError and PeerProtocolError.
        """
        if not wanted.isprintable():
            raise BadRequestError(f"{MODEL_REWRITE_HEADERS[0]} is no model's name")
        rules = self.rules.rules()
        if request.body == b"" or not (rules.rewrites or wanted or self.require_model):
            return None
        body = self._read(request, wanted)
        if body is None or body.model is None:
            if self.require_model:
                raise BadRequestError("the body is no JSON object that names a model")
            return None
        target = wanted or rules.target(body.model, self.random)
        if target is None or target == body.model:
            return None
        if request.response_body is BodyMode.NONE:
            raise self._blind(wanted, "response_body_mode", f"STREAMED, {_REQUEST_MODES}")
        return Rewritten(body.model, target, body.with_model(target))

    def _read(self, request: RequestReady, wanted: str) -> RequestBody | None:
        if request.oversize:
            raise BodyTooLargeError("the body is too large to look for its model")
        if request.body is None or not request.body_replaceable:
            raise self._blind(wanted, "request_body_mode", _REQUEST_MODES)
        return read_request_body(request.body)

    def _blind(self, wanted: str, setting: str, modes: str) -> Exception:
        """A client's wish that cannot be granted is the client's error; a configured one is the filter's."""
        if wanted:
            return BadRequestError(f"{MODEL_REWRITE_HEADERS[0]} is not served here: {setting} hides the body")
        need = (
            "require_model" if self.require_model and not self.rules.rules().rewrites else "model rewriting"
        )
        return PeerProtocolError(
            f"{need} is configured and processing_mode.{setting} does not show whole bodies: "
            f"set {modes} in the ext_proc filter"
        )
