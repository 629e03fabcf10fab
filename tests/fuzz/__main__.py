"""`python -m tests.fuzz`: see `--help`."""

import argparse
import re
import subprocess
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from tests.fuzz.targets import TARGETS

CORPUS: Final = Path(__file__).with_name("corpus")
WORK: Final = Path(".fuzz")
GRACE_SECONDS: Final = 60.0
DESCRIPTION: Final = """\
Fuzzes everything that reads what others send (atheris, guided by coverage), each target in turn within the
time. Inputs that reach new code are kept in .fuzz and used again. A finding is written to .fuzz/findings: put
it into tests/fuzz/corpus, where the test-suite replays it, and mend the code. The last line sums it up."""
EXAMPLES: Final = """\
examples:
  python -m tests.fuzz                        ten minutes over all targets
  python -m tests.fuzz session --seconds 600  one target

exit status: 0 nothing was found, 1 something was, 2 atheris is not installed"""


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parse(arguments)
    if find_spec("atheris") is None:
        print("fuzz: atheris is not installed: pip install -e '.[fuzz]'", file=sys.stderr)
        return 2
    names = options.targets or list(TARGETS)
    seconds = max(1, options.seconds // len(names))
    findings = WORK / "findings"
    findings.mkdir(parents=True, exist_ok=True)
    runs, found = 0, []
    for name in names:
        count, failed = _fuzz(name, seconds, findings)
        print(f"{name}: {count:,} inputs in {seconds} s{', a finding' if failed else ''}", flush=True)
        runs += count
        found += [name] if failed else []
    verdict = f"findings in {', '.join(found)}: see {findings}" if found else "0 findings"
    print(f"fuzz: {len(names)} targets, {runs:,} inputs, {verdict}")
    return 1 if found else 0


def _fuzz(name: str, seconds: int, findings: Path) -> tuple[int, bool]:
    """How many inputs were tried, and whether one broke a promise."""
    kept = WORK / name
    kept.mkdir(parents=True, exist_ok=True)
    log = WORK / f"{name}.log"
    command = [
        *(sys.executable, "-m", "tests.fuzz.one", name, f"-max_total_time={seconds}", "-max_len=2048"),
        *("-timeout=20", "-print_final_stats=1", f"-artifact_prefix={findings}/{name}-"),
        *(str(kept), str(CORPUS / name)),
    ]
    with log.open("wb") as file:
        status = subprocess.run(
            command, check=False, stdout=file, stderr=file, timeout=seconds + GRACE_SECONDS
        ).returncode
    tried = re.search(r"number_of_executed_units:\s*(\d+)", log.read_text(errors="replace"))
    return int(tried[1]) if tried else 0, status != 0


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.fuzz",
        description=DESCRIPTION,
        epilog=f"targets: {', '.join(TARGETS)}\n\n{EXAMPLES}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("targets", nargs="*", metavar="TARGET", help="which (all)")
    parser.add_argument("--seconds", type=int, default=600, metavar="N", help="in all (%(default)s)")
    options = parser.parse_args(arguments)
    if unknown := [name for name in options.targets if name not in TARGETS]:
        parser.error(f"no target {unknown[0]!r}: there are {', '.join(TARGETS)}")
    return options


if __name__ == "__main__":
    sys.exit(main())
