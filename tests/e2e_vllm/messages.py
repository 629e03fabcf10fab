"""Messages for the requests of the run."""

import random
from typing import Any

from tests.parity.corpus.text import hostile, prose

__all__ = ["Body", "assistant", "conversation", "said", "streamed", "user"]

Body = dict[str, Any]
Message = dict[str, Any]


def user(content: Any, **fields: Any) -> Message:
    return {"role": "user", "content": content, **fields}


def assistant(content: Any, **fields: Any) -> Message:
    return {"role": "assistant", "content": content, **fields}


def said(rng: random.Random) -> str:
    """Mostly prose. Lone surrogates are refused by vLLM's tokenizer, and so are of no use here."""
    if rng.random() < 0.4:
        return hostile(rng).encode("utf-8", "replace").decode("utf-8")
    return prose(rng)


def conversation(rng: random.Random, turns: int) -> list[Message]:
    messages = [user(said(rng))]
    for _ in range(turns - 1):
        messages += [assistant(said(rng)), user(said(rng))]
    return messages


def streamed(body: Body) -> Body:
    return {**body, "stream": True, "stream_options": {"include_usage": True}}
