"""Where tokenext's own time goes, stage by stage, on the way of a request through one process."""

import time
from collections.abc import Callable, Mapping, Sequence
from statistics import median

from loadtests.bench.results import Results
from loadtests.bench.workload import KINDS, Ask, workload
from tokenext.catalog import Model
from tokenext.conversations import Conversations
from tokenext.observer import Stage
from tokenext.openai import Api, parse, read_body
from tokenext.tokenization import Stopwatch, tokenize

__all__ = ["SIZES", "measure_stages"]

BUDGET_BYTES = 16 * 1024 * 1024
# More than a core's own caches hold, all of which is read, since there is no match.
_ELSEWHERE = bytes(48 * 1024 * 1024)
_NOWHERE = b"\0\1\0\2"
COLD = ", caches cold"
SIZES = {"1k": 1_000, "8k": 8_000, "32k": 32_000, "128k": 128_000}


def measure_stages(
    results: Results,
    models: Mapping[str, Model],
    *,
    chars_per_token: float,
    progress: Callable[[str], None],
) -> None:
    """Median microseconds of each stage. `models`: one model by how it is set up, each asked in turn.

    Once in a hot loop, and once with cold caches: behind a gateway others have the cores between two
    requests, and what a request touches is gone from their caches when the next one comes.
    """
    table: dict[str, dict[str, dict[str, float]]] = {}
    for kind in KINDS:
        for size, tokens in SIZES.items():
            progress(f"stages: {kind}, {size} tokens")
            count = 10 if results.quick else 30
            # Other prompts when it is cold: the first ones are in the engines' caches.
            hot = workload("bench", kind, tokens, count, chars_per_token=chars_per_token)
            cold = workload("bench", kind, tokens + 1, count, chars_per_token=chars_per_token)
            medians = _measured(models, hot, cold=False)
            medians |= {name + COLD: each for name, each in _measured(models, cold, cold=True).items()}
            table[f"{kind} {size}"] = medians
    results.measurements["stages_us"] = table


def _measured(models: Mapping[str, Model], asks: Sequence[Ask], *, cold: bool) -> dict[str, dict[str, float]]:
    remembered = {name: Conversations(BUDGET_BYTES) for name in models}
    taken: dict[str, list[dict[Stage, float]]] = {name: [] for name in models}
    for ask in asks:
        for name, model in models.items():
            if cold:
                _ELSEWHERE.count(_NOWHERE)
            seconds = _stages(model, ask.body, remembered[name])
            if ask.counts:
                taken[name].append(seconds)
    return {name: _medians(samples) for name, samples in taken.items()}


def _stages(model: Model, text: bytes, conversations: Conversations) -> dict[Stage, float]:
    watch = Stopwatch(time.perf_counter)
    body = read_body(text, conversations)
    request = parse(Api.CHAT, body, conversations)
    watch.lap(Stage.PARSE)
    tokenize(model, request, body, body_replaceable=True, watch=watch)
    taken = watch.taken()
    del taken[Stage.QUEUE]  # nobody waits here
    return taken


def _medians(samples: list[dict[Stage, float]]) -> dict[str, float]:
    return {stage.value: round(median(sample[stage] for sample in samples) * 1e6, 1) for stage in samples[0]}
