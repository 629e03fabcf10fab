"""`python -m loadtests.bench [--quick] [--only SECTION ...]`: see `--help`."""

import argparse
import json
import sys
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console

from loadtests.bench import chains, dynamo_reading, engines, page, plot, stages
from loadtests.bench.model_choice import HELP, choose
from loadtests.bench.prose import prose
from loadtests.bench.results import Results
from loadtests.stack.model_source import Model, ModelError
from tokenext.catalog import Model as TokenextModel
from tokenext.handoff import Handoff
from tokenext.loading import load_catalog
from tokenext.prefix_tree import PrefixTree
from tokenext.settings import ModelSettings, Settings

SECTIONS = ("engines", "stages", "chain", "dynamo", "scaling", "memory")
FOLDER = Path("loadtests/results")


def main() -> int:
    options = _arguments()
    console = Console(stderr=True)
    try:
        model = choose(options.model)
    except ModelError as error:
        console.print(str(error))
        return 2
    results = Results(quick=options.quick, model=model.name)

    def progress(what: str) -> None:
        console.print(f"[dim]{datetime.now(UTC):%H:%M:%S}[/dim] {what}")

    progress(f"loading {model.name}")
    loaded = _load(model)
    chars_per_token = _chars_per_token(loaded)
    logs = FOLDER / "logs"
    if "engines" in options.only:
        engines.measure_engines(
            results,
            loaded,
            (model.folder / "tokenizer.json").read_bytes(),
            chars_per_token=chars_per_token,
            progress=progress,
        )
    if "stages" in options.only:
        setups = {"sandboxed": loaded, "trusted": _load(model, trusted_template=True)}
        stages.measure_stages(results, setups, chars_per_token=chars_per_token, progress=progress)
        dynamo_reading.measure_reading(results, progress=progress)
    for name, measure in (
        ("chain", chains.measure_chain),
        ("dynamo", chains.measure_against_dynamo),
        ("scaling", chains.measure_scaling),
        ("memory", chains.measure_memory),
    ):
        if name in options.only:
            measure(results, model, logs, chars_per_token=chars_per_token, progress=progress)
    results.write(FOLDER / "bench.json")
    plot.draw(results.measurements, FOLDER / "bench.png")
    if options.page is not None:
        page.write(options.page, json.loads((FOLDER / "bench.json").read_text(encoding="utf-8")))
    results.show(Console())
    print(results.summary())
    return 1 if results.misses else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m loadtests.bench",
        description="Measures the chain against its alternatives, interleaved in one run. Writes bench.json "
        "and bench.png to loadtests/results, prints the bounds, and exits 1 if one is missed.",
    )
    parser.add_argument("--page", type=Path, metavar="FILE",
                        help="put the tables into this page, between its marks")  # fmt: skip
    parser.add_argument("--quick", action="store_true", help="fewer samples: about a minute per section")
    parser.add_argument("--only", nargs="+", choices=SECTIONS, default=SECTIONS, metavar="SECTION",
                        help=f"some of: {', '.join(SECTIONS)}")  # fmt: skip
    parser.add_argument(
        "--model",
        default="qwen3",
        help=HELP,
    )
    return parser.parse_args()


def _load(model: Model, *, trusted_template: bool = False) -> TokenextModel:
    entry = ModelSettings(
        name=model.name,
        source=str(model.folder),
        handoff=Handoff.DYNAMO,
        trusted_template=trusted_template,
    )
    settings = Settings(listen="127.0.0.1:1", models=(entry,))
    tree = PrefixTree(settings.prefix_cache.budget_bytes)
    catalog = load_catalog(settings, source="bench", now=lambda: datetime.now(UTC), prefix_tree=tree)
    found = catalog.find(model.name)
    assert found is not None
    return found


def _chars_per_token(model: TokenextModel) -> float:
    text = prose(1, 100_000)
    return len(text) / len(model.engine.encode(text, add_special_tokens=False))


if __name__ == "__main__":
    sys.exit(main())
