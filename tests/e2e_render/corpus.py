"""All requests of the run, made by code of ours from a seed."""

import json
import random
from collections.abc import Iterator
from itertools import count

from tests.e2e_render.asked import CHAT, COMPLETION, JSON_HEADERS, NAME, TOKENIZE, Asked, asking
from tests.e2e_render.field_families import field_families
from tests.e2e_render.http_families import http_families
from tests.e2e_vllm.chat_families import CHATS
from tests.e2e_vllm.completion_families import COMPLETIONS, own_ids
from tests.parity.corpus.case import Case
from tests.parity.corpus.edge_cases import edge_cases
from tests.parity.corpus.generated import generated
from tests.tokenext.vllm_odd_messages import ODD_MESSAGES

__all__ = ["corpus"]

_TOKENIZED_TOO = 3  # every third chat is asked of /tokenize as well


def corpus(seed: int, size: int) -> list[Asked]:
    """`size` of the parity corpus's generated requests are among them."""
    return [
        *_families(seed),
        *(_of_case(case, "parity: edge cases") for case in edge_cases()),
        *(_of_case(case, "parity: generated") for case in generated(seed, size)),
        *field_families(),
        *http_families(),
        *_odd_messages(),
    ]


def _families(seed: int) -> Iterator[Asked]:
    rng = random.Random(f"e2e-render:{seed}")
    numbers = count()
    for kind, family in CHATS.items():
        for body in family(rng):
            number = next(numbers)
            yield asking(kind, f"{kind} {number}", CHAT, body)
            if number % _TOKENIZED_TOO == 0:
                yield asking("tokenize, chats", f"tokenize {kind} {number}", TOKENIZE, body)
    for kind, completions in {**COMPLETIONS, "completion, ids": own_ids}.items():
        for body in completions(rng):
            yield asking(kind, f"{kind} {next(numbers)}", COMPLETION, body)


def _odd_messages() -> Iterator[Asked]:
    for name, (messages, _) in ODD_MESSAGES.items():
        body = json.dumps({"model": NAME, "messages": messages}).encode()
        for path in (CHAT, TOKENIZE):
            yield Asked(f"{name}: {path}", "odd messages", path, body)


def _of_case(case: Case, kind: str) -> Asked:
    """Its own text stays as it is, even where broken. Lone surrogates are bytes that no JSON may have."""
    text = case.body(NAME).encode("utf-8", "surrogatepass")
    return Asked(case.name, kind, f"{case.path}/render", text, JSON_HEADERS)
