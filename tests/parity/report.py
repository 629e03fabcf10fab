"""The page of a run: docs/fidelity.md."""

import platform
from collections import Counter
from collections.abc import Iterator, Sequence
from importlib.metadata import version

from tests.parity.comparison import Outcome
from tests.parity.fetch import BFCL, NPM_TOKENIZERS, SHAREGPT, TRANSFORMERS
from tests.parity.models import MODELS

__all__ = ["page"]

_INTRODUCTION = """\
# Are the ids the engine's own?

Written by `{command}` on {date}; do not edit. Every case goes to every model:
hand-written edge cases, {cases:,} generated requests (system, turns, tools, thinking, content parts,
unfinished messages, hostile text, odd and broken fields), {sharegpt:,} ShareGPT conversations, {tools:,} tool
conversations made of BFCL's questions and functions. `dialect` has cases of its own: every piece of template
language, done to every kind of value. The oracles are the real ones: transformers' `apply_chat_template` and
tokenizer, and the ids that a real Dynamo frontend would send to its (mocker) worker.

**{summary}**

equal: called exact, and the engine's very ids. refused: called exact, and the engine answers the request
with an error of its own, with our ids as without. not exact: ids to route by, never handed over. skipped: no
ids. mismatch: called exact, and other ids by the engine.

| model | covers | oracle | cases | equal | refused | not exact | skipped | mismatches |
|---|---|---|---|---|---|---|---|---|
"""
_REASONS = """
## Why ids were not promised

right anyhow: ids that promise nothing and were the engine's own all the same; of skipped requests, how many
have ids by the engine. Rules: tests/parity/RULES.md.

| oracle | finding | reason | cases | right anyhow | for example |
|---|---|---|---|---|---|
"""


def page(
    outcomes: Sequence[Outcome],
    *,
    command: str,
    date: str,
    summary: str,
    cases: int,
    sharegpt: int,
    tools: int,
) -> str:
    """Markdown. `summary` is the run's last line; the numbers are those that were asked for."""
    text = _INTRODUCTION.format(
        command=command, date=date, summary=summary, cases=cases, sharegpt=sharegpt, tools=tools
    )
    text += "".join(map(_row, outcomes))
    text += _REASONS + "".join(_reasons(outcomes))
    return text + f"\n{_versions()}\n"


def _row(outcome: Outcome) -> str:
    model = MODELS[outcome.model]
    whose = "its own template" if model.real else model.template
    numbers = (
        *(outcome.cases, outcome.equal, outcome.refused, outcome.not_exact.total(), outcome.skipped.total()),
        len(outcome.mismatches),
    )
    counted = " | ".join(f"{number:,}" for number in numbers)
    return (
        f"| {outcome.model} | {model.tokenizer}, {whose}: {model.covers} | {outcome.oracle} | {counted} |\n"
    )


def _reasons(outcomes: Sequence[Outcome]) -> Iterator[str]:
    for oracle in dict.fromkeys(outcome.oracle for outcome in outcomes):
        of_oracle = [outcome for outcome in outcomes if outcome.oracle == oracle]
        examples = {reason: name for each in reversed(of_oracle) for reason, name in each.examples.items()}
        findings = {
            "not exact": ([each.not_exact for each in of_oracle], [each.right_anyhow for each in of_oracle]),
            "skipped": ([each.skipped for each in of_oracle], [each.missed for each in of_oracle]),
        }
        for finding, (counts, rights) in findings.items():
            total, right = _sum(counts), _sum(rights)
            for reason, number in total.most_common():
                example = examples.get(reason, "")
                yield f"| {oracle} | {finding} | {reason} | {number:,} | {right[reason]:,} | {example} |\n"


def _sum(counters: Sequence[Counter[str]]) -> Counter[str]:
    total: Counter[str] = Counter()
    for counter in counters:
        total.update(counter)
    return total


def _versions() -> str:
    packages = ("ai-dynamo-runtime", "tokenizers", "fastokens", "jinja2")
    ours = ", ".join(f"{name} {version(name)}" for name in packages)
    tokenizers = ", ".join(sorted(NPM_TOKENIZERS.values()))
    return (
        f"Python {platform.python_version()}, {ours}; oracle: transformers {TRANSFORMERS}.\n"
        f"Tokenizers: {tokenizers}.\nConversations: {SHAREGPT}, {BFCL}."
    )
