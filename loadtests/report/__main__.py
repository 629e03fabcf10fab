"""`python -m loadtests.report`: see `--help`."""

import argparse
import dataclasses
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from loadtests.load import record, samples
from loadtests.load.record import RecordError
from loadtests.load.samples import SamplesError
from loadtests.report import page, plots
from loadtests.report.figures import Figures, figures

DESCRIPTION: Final = """\
Makes a page of what `make load` or `python -m loadtests.compare` left behind: report.html (one file, with its
pictures inside), report.json (the same figures), and the pictures as PNG."""
EXAMPLES: Final = """\
examples:
  python -m loadtests.report .load/20261127-101500-4711
  python -m loadtests.report .load/20261127-101500-4711-compare --out docs/comparison

exit status: 0 the page is written, 2 there is nothing to make it of (one line says why)"""


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parse(arguments)
    try:
        found = record.read(options.folder)
        targets = [
            figures(target, [list(samples.read(options.folder / each.samples)) for each in target.rounds])
            for target in found.targets
        ]
        pictures = plots.draw(targets)
        out: Path = options.out or options.folder
        out.mkdir(parents=True, exist_ok=True)
        written = out / "report.html"
        written.write_text(page.render(found, targets, pictures), encoding="utf-8")
        (out / "report.json").write_text(_document(found, targets), encoding="utf-8")
        for name, picture in pictures.items():
            (out / f"{name}.png").write_bytes(picture)
    except (RecordError, SamplesError, OSError) as error:
        print(f"report: {error}", file=sys.stderr)
        return 2
    print(f"report: {page.summary(targets)}; {written}")
    return 0


def _document(found: record.Record, targets: Sequence[Figures]) -> str:
    def told(target: Figures) -> dict[str, object]:
        fields = dataclasses.asdict(target)
        del fields["firsts"]  # as many as there are requests
        return {**fields, "failed": target.failed}

    document = {
        "title": found.title,
        "machine": found.machine,
        "parameters": found.parameters,
        "targets": [told(target) for target in targets],
    }
    text = json.dumps(document, indent=1, default=str, sort_keys=False)
    return f"{text}\n"


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m loadtests.report",
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="of the run")
    parser.add_argument("--out", type=Path, metavar="DIR", help="for the page (the run's folder)")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
