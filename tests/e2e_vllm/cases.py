"""The requests of the run: families written for this engine, and those of the parity corpus."""

import json
import random
from collections.abc import Iterator
from itertools import count
from typing import Final

from tests.e2e_vllm.chat_families import CHATS
from tests.e2e_vllm.completion_families import COMPLETIONS, own_ids
from tests.e2e_vllm.engine_families import left, planted
from tests.e2e_vllm.messages import Body, assistant, streamed, user
from tests.e2e_vllm.model import NAME
from tests.e2e_vllm.request import Expected, Request, asking
from tests.parity.corpus import tools as tooling
from tests.parity.corpus.case import CHAT, COMPLETION, Case
from tests.parity.corpus.edge_cases import edge_cases
from tests.parity.corpus.generated import generated
from tests.parity.corpus.recorded import sharegpt, tool_conversations
from tests.parity.corpus.text import prose

__all__ = ["corpus", "families", "foreign"]

_CORPORA: Final = {"edge": "edge cases", "sharegpt": "ShareGPT", "bfcl": "BFCL tools"}


def families(seed: int) -> Iterator[Request]:
    rng = random.Random(f"e2e-vllm:{seed}")
    numbers = count()
    for kind, path, expected, family in (
        *((kind, CHAT, Expected.HANDED, family) for kind, family in CHATS.items()),
        *((kind, COMPLETION, Expected.HANDED, family) for kind, family in COMPLETIONS.items()),
        ("completion, ids", COMPLETION, Expected.OWN_IDS, own_ids),
    ):
        for body in family(rng):
            yield _request(f"{kind} {next(numbers)}", kind, path, expected, body)
    yield from left(rng)
    yield from planted(rng)


def corpus(seed: int, size: int) -> Iterator[Request]:
    """Edge cases, `size` generated requests, and recorded conversations in proportion. Raises FetchError."""
    for case in (
        *edge_cases(),
        *generated(seed, size),
        *sharegpt(seed, size // 3),
        *tool_conversations(seed, size // 4),
    ):
        kind = case.name.partition("-")[0]
        text = _asking_case(case)
        yield Request(case.name, f"parity: {_CORPORA.get(kind, kind)}", case.path, Expected.ANY, text, text)


def foreign(seed: int) -> Iterator[Request]:
    """Requests for the run with another template: plain ones, so that any template serves them."""
    rng = random.Random(f"e2e-vllm-foreign:{seed}")
    for number in range(60):
        messages = [user(prose(rng)), assistant(prose(rng)), user(prose(rng))][2 * (number % 2) :]
        body: Body = {"messages": messages}
        if number % 5 == 1:
            body["tools"] = tooling.tools(rng)
        if number % 3 == 0:
            body = streamed(body)
        yield _request(f"foreign chat {number}", "chat", CHAT, Expected.HANDED, body)
    for number in range(20):
        body = {"prompt": prose(rng)}
        if number % 3 == 0:
            body = streamed(body)
        yield _request(f"foreign completion {number}", "completion", COMPLETION, Expected.HANDED, body)


def _request(name: str, kind: str, path: str, expected: Expected, body: Body) -> Request:
    text = asking(body)
    return Request(name, kind, path, expected, text, text)


def _asking_case(case: Case) -> str:
    """With what it lacks: an end, and the echo of its ids. Its own text stays as it is, even where broken."""
    try:
        given = json.loads(case.text)
    except ValueError:
        given = {}
    extra = ['"return_token_ids": true']
    if not {"max_tokens", "max_completion_tokens"} & set(given):
        extra.append('"max_tokens": 2')
    return case.body(NAME, ", ".join(extra))
