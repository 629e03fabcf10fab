"""`tokenext serve --processes N` as an operator runs it: real processes, killed and stopped."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

pytestmark = pytest.mark.integration

PATIENCE_SECONDS = 30.0


class Parent:
    """A running `tokenext serve --processes 2`, and what its children answer."""

    def __init__(self, folder: Path, model_dir: Path) -> None:
        self.folder = folder
        config = folder / "tokenext.yaml"
        models = [{"name": "m", "source": str(model_dir)}]
        config.write_text(json.dumps({"listen": f"unix:{folder}/t.sock", "models": models}))
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tokenext", "serve", "--config", str(config), "--processes", "2"],
            stdout=subprocess.PIPE,
        )

    def serves(self, number: int) -> bool:
        with grpc.insecure_channel(f"unix:{self.folder}/t-{number}.sock") as channel:
            stub = health_pb2_grpc.HealthStub(channel)
            try:
                answer = stub.Check(health_pb2.HealthCheckRequest(service="readiness"), timeout=1)
            except grpc.RpcError:
                return False
        return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)

    def children(self) -> list[int]:
        path = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        return [int(pid) for pid in path.read_text().split()]


def until(condition) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, "it took too long"
        time.sleep(0.05)


def gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):  # also when it goes while it is read
        return True


@pytest.fixture
def parent(tmp_path, model_dir):
    running = Parent(tmp_path, model_dir)
    try:
        until(lambda: running.serves(0) and running.serves(1))
        yield running
    finally:
        running.process.kill()
        running.process.communicate()


def test_a_killed_process_is_replaced_while_the_other_serves_on(parent):
    before = parent.children()
    assert len(before) == 2
    os.kill(before[0], signal.SIGKILL)
    until(lambda: gone(before[0]))
    assert parent.serves(0) or parent.serves(1)
    until(lambda: parent.serves(0) and parent.serves(1))
    assert set(parent.children()) & set(before) == {before[1]}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_stopping_the_parent_stops_all_and_exits_0(parent, number):
    children = parent.children()
    parent.process.send_signal(number)
    assert parent.process.wait(PATIENCE_SECONDS) == 0
    assert all(gone(pid) for pid in children)


def test_no_process_outlives_a_parent_that_was_killed(parent):
    children = parent.children()
    parent.process.kill()
    until(lambda: all(gone(pid) for pid in children))


def test_settings_that_cannot_be_used_end_at_once(tmp_path):
    config = tmp_path / "tokenext.yaml"
    config.write_text("listen: here")
    command = [sys.executable, "-m", "tokenext", "serve", "--config", str(config), "--processes", "2"]
    assert subprocess.run(command, check=False, capture_output=True, timeout=60).returncode == 2
