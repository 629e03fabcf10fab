"""`python -m tests.faults`: see `--help`."""

import argparse
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from tests.faults.record import Outcome, read

MARKED: Final = re.compile(r"(<!-- faults -->\n).*?(<!-- faults end -->)", re.DOTALL)
DESCRIPTION: Final = """\
Breaks each part of the chain in turn while clients go on asking: killed, hung, slow, with a full disk. Prints
what they saw; the last line says how many faults were survived as promised. Takes about ten minutes."""
EXAMPLES: Final = """\
examples:
  python -m tests.faults                              all of them
  python -m tests.faults -k hung                      some (pytest's -k)
  python -m tests.faults --page docs/operations.md    put the table into the page, between its marks

exit status: 0 all survived as promised, 1 one was not"""


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parse(arguments)
    with tempfile.TemporaryDirectory(prefix="faults-") as folder:
        outcomes = Path(folder) / "outcomes.jsonl"
        outcomes.touch()
        command = [
            sys.executable,
            "-m",
            "pytest",
            "-m",
            "faults",
            "-q",
            "--no-header",
            str(Path(__file__).parent),
        ]
        if options.k:
            command += ["-k", options.k]
        status = subprocess.run(
            command, check=False, env={**os.environ, "FAULTS_OUTCOMES": str(outcomes)}
        ).returncode
        seen = read(outcomes)
    table = markdown(seen)
    print(table)
    if options.page is not None:
        text = options.page.read_text(encoding="utf-8")
        options.page.write_text(MARKED.sub(rf"\g<1>\n{table}\n\n\g<2>", text), encoding="utf-8")
    verdict = "all survived as promised" if status == 0 else "not all survived as promised: see above"
    print(f"faults: {len(seen)} tried, {verdict}")
    return 0 if status == 0 and seen else 1


def markdown(outcomes: Sequence[Outcome]) -> str:
    rows = [
        f"| {each.fault} | {each.during} | {each.slowest:.1f} s | {_back(each)} | {each.counted or '-'} |"
        for each in outcomes
    ]
    head = (
        "| fault | clients see meanwhile | slowest answer | well again after | counted |",
        "|---|---|---|---|---|",
    )
    return "\n".join((*head, *rows))


def _back(outcome: Outcome) -> str:
    return "at once" if outcome.back is None else f"{outcome.back:.1f} s"


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.faults",
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("-k", default="", metavar="WORDS", help="only tests that match, as pytest has it")
    parser.add_argument("--page", type=Path, metavar="FILE", help="put the table into this page")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
