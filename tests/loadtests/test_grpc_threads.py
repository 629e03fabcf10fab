"""What docs/operations.md says of gRPC's threads holds for the gRPC that is installed here."""

import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from loadtests.stack.services import passing
from tests.chart.rendering import REPOSITORY

SETTING = {"GRPC_EXPERIMENTS": "-event_engine_listener"}
CALLS = 200
LIVENESS = health_pb2.HealthCheckRequest(service="liveness")


def wakes_of_grpcs_threads(pid: int) -> int:
    """How often the threads that gRPC has for reading sockets slept and were woken."""
    wakes = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        if (task / "comm").read_text().strip() == "event_engine":
            switches = re.search(
                r"^voluntary_ctxt_switches:\s+(\d+)", (task / "status").read_text(), re.MULTILINE
            )
            wakes += int(switches[1])
    return wakes


def served(tmp_path: Path, environment: Mapping[str, str]) -> tuple[float, str]:
    """Wakes of those threads for each call that a server of ours answers, and what it wrote as errors."""
    address = f"unix:{tmp_path}/server.sock"
    command = passing("passing", address).command
    env = {name: value for name, value in os.environ.items() if name not in SETTING}
    env |= {"PYTHONPATH": str(REPOSITORY), **environment}
    with subprocess.Popen(command, env=env, stderr=subprocess.PIPE, text=True) as process:
        try:
            with grpc.insecure_channel(address) as channel:
                check = health_pb2_grpc.HealthStub(channel).Check
                check(LIVENESS, wait_for_ready=True, timeout=20)
                before = wakes_of_grpcs_threads(process.pid)
                for _ in range(CALLS):
                    check(LIVENESS)
                wakes = wakes_of_grpcs_threads(process.pid) - before
        finally:
            process.kill()
        return wakes / CALLS, process.stderr.read()


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_with_the_setting_grpcs_own_threads_sleep_while_the_server_answers(tmp_path):
    wakes, _ = served(tmp_path, SETTING)
    assert wakes < 0.5


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_by_default_they_are_woken_for_each_call(tmp_path):
    """Where they are not, nobody needs the setting any more."""
    wakes, _ = served(tmp_path, {})
    assert wakes > 1


def test_this_grpc_knows_the_name_of_the_setting(tmp_path):
    """Where it does not, it says so in the log of each service: then the page is to change."""
    _, errors = served(tmp_path, SETTING)
    assert "experiment" not in errors
    _, errors = served(tmp_path, {"GRPC_EXPERIMENTS": "-none_of_this_name"})
    assert "Unknown experiment" in errors
