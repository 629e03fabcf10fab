"""Tokenizers side by side: our engine with its cache, plain fastokens, and Hugging Face's two calls."""

import random
import time
from collections.abc import Callable
from statistics import median
from typing import Any

from tokenizers import Tokenizer

from loadtests.bench.prose import Conversation, prose
from loadtests.bench.results import Ratio, Results
from tokenext.catalog import Model
from tokenext.engines.fast import FastEngine
from tokenext.engines.huggingface import HuggingFaceEngine
from tokenext.openai import Api, parse, read_body

__all__ = ["measure_engines", "rendered"]

FIRST_SEEN_CHARS = {"0.5K": 512, "4K": 4_096, "32K": 32_768, "128K": 131_072, "512K": 524_288}
TURN_TOKENS = {"8k": 8_000, "32k": 32_000, "128k": 128_000}


def rendered(model: Model, body: bytes) -> str:
    """The prompt of a chat body, as the model's own template gives it."""
    request = parse(Api.CHAT, read_body(body))
    return model.profile.chat(request).text  # type: ignore[arg-type]  # a chat body is a ChatRequest


def measure_engines(
    results: Results,
    model: Model,
    tokenizer_json: bytes,
    *,
    chars_per_token: float,
    progress: Callable[[str], None],
) -> None:
    """Every text is given to all in turn, so that a slow moment of the machine meets them alike."""
    reference = Tokenizer.from_buffer(tokenizer_json)
    batch = HuggingFaceEngine(tokenizer_json)
    plain = FastEngine(tokenizer_json)
    contenders: dict[str, Callable[[str], Any]] = {
        "ours": lambda text: model.engine.encode(text, add_special_tokens=False),
        "fastokens": lambda text: plain.encode(text, add_special_tokens=False),
        "hf encode_batch_fast": lambda text: batch.encode(text, add_special_tokens=False),
        "hf encode": lambda text: reference.encode(text, add_special_tokens=False),
    }
    table: dict[str, dict[str, float]] = {}
    for name, chars in FIRST_SEEN_CHARS.items():
        progress(f"first-seen, {name} characters")
        samples = _samples(results, chars)
        texts = [prose(seed * 7919 + chars, chars) for seed in range(samples)]
        table[f"first-seen {name}"] = _timed(contenders, texts, prime=None)
    for name, tokens in TURN_TOKENS.items():
        progress(f"turn N+1 at {name} tokens")
        chars = round(tokens * chars_per_token)
        pairs = [_turns(model, seed, chars) for seed in range(_samples(results, chars))]
        table[f"turn N+1 {name}"] = _timed(
            contenders, [after for _, after in pairs], prime=[b for b, _ in pairs]
        )
    results.measurements["tokenize_us"] = table
    first, turn = table["first-seen 32K"], table["turn N+1 128k"]
    results.ratios["tokenize: first-seen 32K chars, times HF encode"] = Ratio(
        first["hf encode"] / first["ours"], 30, 40, "higher"
    )
    results.ratios["tokenize: turn N+1 at 128k tokens, times HF encode"] = Ratio(
        turn["hf encode"] / turn["ours"], 300, 600, "higher"
    )
    results.ratios["tokenize: turn N+1 at 128k tokens, times plain fastokens"] = Ratio(
        turn["fastokens"] / turn["ours"], 2, 3, "higher"
    )


def _samples(results: Results, chars: int) -> int:
    full = max(5, min(40, 4_000_000 // chars))
    return max(3, full // 4) if results.quick else full


def _turns(model: Model, seed: int, chars: int) -> tuple[str, str]:
    """The prompts of two turns of one conversation, one after the other."""
    import orjson  # noqa: PLC0415  # only here

    talk = Conversation(seed, chars)
    bodies = [orjson.dumps({"model": model.name, "messages": talk.turn(number)}) for number in range(2)]
    return rendered(model, bodies[0]), rendered(model, bodies[1])


def _timed(
    contenders: dict[str, Callable[[str], Any]], texts: list[str], *, prime: list[str] | None
) -> dict[str, float]:
    """Median microseconds of each contender. `prime`: the turn N that ours saw before a turn N+1."""
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for index, text in enumerate(texts):
        # In another order each time: whoever follows the slowest finds the caches full of its work.
        for name in random.Random(index).sample(list(contenders), len(contenders)):
            encode = contenders[name]
            if prime is not None and name == "ours":
                encode(prime[index])
            started = time.perf_counter()
            encode(text)
            times[name].append((time.perf_counter() - started) * 1e6)
    return {name: round(median(values), 1) for name, values in times.items()}
