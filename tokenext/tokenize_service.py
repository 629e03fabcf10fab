"""The gRPC service tokenext.v1.Tokenization (proto/tokenext/v1/tokenization.proto), beside ext_proc."""

from typing import Any, Final

import grpc

from extproc.pb.tokenext.v1 import tokenization_pb2, tokenization_pb2_grpc
from extproc.token_metadata import TokenRecord
from extproc.token_proto import to_proto
from extproc.tokenization import MAX_PROMPTS
from extproc.tracing import trace_parent
from tokenext.callout import Callout, Prompt
from tokenext.declined import SkipReason

__all__ = ["SERVICE", "register"]

SERVICE: Final = "tokenext.v1.Tokenization"
# Of a caller's deadline, so that what was done by then still reaches the caller.
_ANSWER_BY: Final = 0.9


class _Servicer:
    def __init__(self, callout: Callout) -> None:
        self._callout = callout

    async def tokenize(self, request: Any, context: Any) -> Any:
        if not 0 < len(request.prompts) <= MAX_PROMPTS:
            await context.abort(
                grpc.StatusCode.INVALID_ARGUMENT,
                f"a call carries 1 to {MAX_PROMPTS} prompts, this one {len(request.prompts)}",
            )
        left: float | None = context.time_remaining()
        traceparent = trace_parent(dict(context.invocation_metadata() or ()))
        answers = await self._callout.answer(
            [
                Prompt(prompt.path, prompt.body, prompt.model, traceparent=traceparent)
                for prompt in request.prompts
            ],
            deadline_seconds=None if left is None else max(0.0, left * _ANSWER_BY),
        )
        return tokenization_pb2.TokenizeResponse(results=[_result(answer) for answer in answers])


def register(callout: Callout, server: Any) -> None:
    """Add the service to a gRPC server (`extproc.server.Register`, with `callout` bound)."""
    servicer = tokenization_pb2_grpc.TokenizationServicer()
    servicer.Tokenize = _Servicer(callout).tokenize
    tokenization_pb2_grpc.add_TokenizationServicer_to_server(servicer, server)


def _result(answer: TokenRecord | SkipReason) -> Any:
    if isinstance(answer, SkipReason):
        return tokenization_pb2.PromptResult(skip_reason=answer.value)
    return tokenization_pb2.PromptResult(record=to_proto(answer))
