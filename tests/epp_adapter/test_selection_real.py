"""Runs selection_on_mockers.py where its mockers, which publish on all interfaces, meet nobody else."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.integration, pytest.mark.slow]

TESTS = Path(__file__).with_name("selection_on_mockers.py")
UNSHARE = ("unshare", "--net", "--map-root-user")
LIMIT_SECONDS = 240


def networks_can_be_made() -> bool:
    if shutil.which("unshare") is None or shutil.which("ip") is None:
        return False
    return (
        subprocess.run(
            [*UNSHARE, "ip", "link", "set", "lo", "up"], capture_output=True, check=False
        ).returncode
        == 0
    )


@pytest.mark.skipif(not networks_can_be_made(), reason="no network namespaces here (unshare, ip)")
def test_dynamos_selection_service_over_mockers_keeps_every_promise():
    pytest_here = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", str(TESTS)]
    done = subprocess.run(
        [*UNSHARE, "sh", "-c", 'ip link set lo up && exec "$@"', "sh", *pytest_here],
        cwd=TESTS.parents[2],
        env={**os.environ, "DYN_LOG": "warn"},
        capture_output=True,
        text=True,
        timeout=LIMIT_SECONDS,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout[-6000:]}\n{done.stderr[-2000:]}"
    assert " passed" in done.stdout
    assert "skipped" not in done.stdout
