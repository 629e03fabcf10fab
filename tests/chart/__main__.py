"""`make chart`: lint, the whole matrix, refusals, Envoy's opinion; one closing line, and an exit status.

python -m tests.chart            # everything
python -m tests.chart golden     # write the kept renders anew
python -m tests.chart docs       # write the chart's README anew
"""

import json
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import helm_python

from loadtests.stack import envoy_binary
from tests.chart import golden, values_table
from tests.chart.checks import CHECKS
from tests.chart.matrix import combinations
from tests.chart.rendering import CHART, Refused, Rendered, render
from tests.chart.test_envoy import certificate
from tests.chart.test_refusals import PAIRS, SCHEMA

LEAST_RENDERS = 40


def lint() -> list[str]:
    report = helm_python.lint(CHART, strict=True)
    return [f"lint: {each}" for each in report["errors"]] + [
        f"lint: {each['path']}: {each['error']}" for each in report["messages"] if each["severity"] > 1
    ]


def refusals() -> list[str]:
    failed = []
    for values, named in [*((each[1], each[2]) for each in SCHEMA), *PAIRS]:
        try:
            render(values)
        except Refused as refused:
            if named not in str(refused):
                failed.append(f"refusal: {named} is not named by: {refused}")
        else:
            failed.append(f"refusal: {named}: rendered {json.dumps(values)}")
    return failed


def bootstraps(releases: dict[str, Rendered], folder: Path) -> tuple[int, list[str]]:
    """How many different ones Envoy took, and what it said of others."""
    certificate(folder)
    binary = envoy_binary.find()
    failed, seen = [], set()
    for name, release in releases.items():
        for config in release.of("ConfigMap"):
            text = config["data"].get("envoy.json")
            if text is None or text in seen:
                continue
            seen.add(text)
            secrets = folder / "secrets.json"
            secrets.write_text(config["data"].get("secrets.json", "").replace("/etc/envoy/tls", str(folder)))
            file = folder / "envoy.json"
            file.write_text(text.replace("/etc/envoy/secrets.json", str(secrets)))
            try:
                envoy_binary.validate(binary, file)
            except envoy_binary.EnvoyConfigError as error:
                failed.append(f"{name}: {error}")
    return len(seen) - len(failed), failed


def main() -> int:
    started = time.monotonic()
    failed = lint()
    releases: dict[str, Rendered] = {}
    for name, values in combinations():
        try:
            releases[name] = render(values)
        except (Refused, AssertionError) as error:
            failed.append(f"{name}: {error}")
    kinds: Counter[str] = Counter()
    for name, release in releases.items():
        kinds.update(each["kind"] for each in release.objects)
        for check in CHECKS.values():
            try:
                check(release)
            except (AssertionError, ValueError) as error:
                failed.append(f"{name}: {check.__name__}: {error}")
    failed += refusals()
    with tempfile.TemporaryDirectory() as folder:
        taken, said = bootstraps(releases, Path(folder))
    failed += said
    if values_table.readme() != values_table.README.read_text(encoding="utf-8"):
        failed.append(
            "charts/tokenext-chain/README.md is not what the values say: python -m tests.chart docs"
        )
    if len(releases) < LEAST_RENDERS:
        failed.append(f"{len(releases)} renders, and {LEAST_RENDERS} were promised")
    for each in failed:
        print(each)
    print(
        f"chart: {'FAILED' if failed else 'ok'}: {len(releases)} renders, {kinds.total()} objects of "
        f"{len(kinds)} kinds, {len(CHECKS)} checks of each, {len(SCHEMA) + len(PAIRS)} refusals, "
        f"{taken} Envoy bootstraps, "
        f"{len(failed)} problems, {time.monotonic() - started:.0f} s"
    )
    return 1 if failed else 0


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["golden"]:
            golden.write()
        case ["docs"]:
            values_table.README.write_text(values_table.readme(), encoding="utf-8")
        case []:
            sys.exit(main())
        case _:
            sys.exit(__doc__)
