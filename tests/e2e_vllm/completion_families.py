"""Completions, of every shape that a prompt may have where there is one of it."""

import random
from collections.abc import Iterator
from typing import Final

from tests.e2e_vllm.messages import Body, said, streamed
from tests.parity.corpus.text import prose

__all__ = ["COMPLETIONS", "own_ids"]


def completions(rng: random.Random) -> Iterator[Body]:
    for _ in range(24):
        yield {"prompt": said(rng) or "empty"}
    for fields in (
        {"n": 2, "seed": 1},
        {"add_special_tokens": False},
        {"logprobs": 2},
        {"truncate_prompt_tokens": 5},
        {"cache_salt": "tenant-2"},
        {"suffix": None, "user": "u"},
    ):
        yield {"prompt": prose(rng), **fields}


def lists_of_one(rng: random.Random) -> Iterator[Body]:
    for _ in range(16):
        yield {"prompt": [said(rng) or "empty"]}


def streamed_completions(rng: random.Random) -> Iterator[Body]:
    for number in range(12):
        text = said(rng) or "empty"
        yield streamed({"prompt": [text] if number % 3 == 2 else text})


def own_ids(rng: random.Random) -> Iterator[Body]:
    for number in range(16):
        ids = [rng.randrange(151_000) for _ in range(rng.choice((1, 5, 40, 300)))]
        body: Body = {"prompt": [ids] if number % 2 else ids}
        yield streamed(body) if number % 4 == 3 else body


COMPLETIONS: Final = {
    "completion": completions,
    "completion, list of one": lists_of_one,
    "completion, streamed": streamed_completions,
}
