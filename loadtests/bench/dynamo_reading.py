"""What it takes Dynamo's binding to read token ids: one Python integer for each, whatever it is handed."""

import random
import time
from collections.abc import Callable
from statistics import median
from typing import Final

from dynamo._core import compute_block_hash_for_seq

from extproc.token_metadata import TokenIds
from loadtests.bench.results import Results
from loadtests.bench.stages import SIZES

__all__ = ["measure_reading"]

_VOCABULARY: Final = 150_000


def measure_reading(results: Results, *, progress: Callable[[str], None]) -> None:
    """Median microseconds by prompt size.

    The router's `best_worker` reads ids as the function does that is measured; with blocks that are longer
    than the prompt there is nothing for it to do but that.
    """
    progress("stages: Dynamo's binding reads ids")
    source = random.Random(1)
    table: dict[str, float] = {}
    for size, tokens in SIZES.items():
        ids = TokenIds.pack([source.randrange(_VOCABULARY) for _ in range(tokens)])
        taken = []
        for _ in range(20 if results.quick else 100):
            started = time.perf_counter()
            hashes = compute_block_hash_for_seq(ids.as_array(), tokens + 1)
            taken.append(time.perf_counter() - started)
            assert hashes == []
        table[size] = round(median(taken) * 1e6, 1)
    results.measurements["dynamo_reading_us"] = table
