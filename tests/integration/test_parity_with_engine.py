"""tokenext beside a real Dynamo frontend: ids are compared, and hand-off comes and goes with the finding."""

import asyncio
import json
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc.aio
import pytest
from google.protobuf import json_format

from extproc import token_metadata
from loadtests.stack import dynamo_parts
from loadtests.stack.dynamo_parts import DynamoPlane
from loadtests.stack.model_source import resolve
from loadtests.stack.probes import LOOPBACK, free_ports
from loadtests.stack.processes import Supervisor
from tests.tokenext.served import Process, send
from tokenext.__main__ import main
from tokenext.probe_corpus import PROBES

pytestmark = pytest.mark.integration

MODEL = resolve(None)
START_SECONDS = 90.0
CHAT = json.dumps({"model": MODEL.name, "messages": [{"role": "user", "content": "hi"}]}).encode()


class Engine:
    """A Dynamo frontend that routes by KV, and a mocker worker."""

    def __init__(self, supervisor: Supervisor, folder: Path) -> None:
        nats, rpc, port = free_ports(3)
        plane = DynamoPlane(nats, folder / "discovery")
        self.url = f"http://{LOOPBACK}:{port}"
        supervisor.wait_ready([supervisor.start(dynamo_parts.nats(plane))], deadline_seconds=START_SECONDS)
        self.frontend = supervisor.start(
            dynamo_parts.frontend(plane, "frontend", MODEL, port=port, router_mode="kv")
        )
        worker = supervisor.start(dynamo_parts.mocker(plane, "worker", MODEL, rpc_port=rpc))
        supervisor.wait_ready([worker, self.frontend], deadline_seconds=START_SECONDS)


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    folder = tmp_path_factory.mktemp("engine")
    with Supervisor(folder / "logs") as supervisor:
        yield Engine(supervisor, folder)


@pytest.fixture
def other_template(tmp_path: Path) -> str:
    """The model's own template, but for one word at the end of every prompt."""
    own = json.loads((MODEL.folder / "tokenizer_config.json").read_text())["chat_template"]
    path = tmp_path / "other.jinja"
    path.write_text(own + "{{ 'other' }}")
    return str(path)


def write(config: Path, *, verify: dict | None = None, **fields: object) -> Path:
    model = {"name": MODEL.name, "source": str(MODEL.folder), "handoff": "dynamo", **fields}
    if verify is not None:
        model["verify"] = verify
    config.write_text(json.dumps({"listen": f"unix:{config.parent}/s", "models": [model]}))
    return config


async def line(process: Process, event: str) -> dict:
    async with asyncio.timeout(START_SECONDS):
        return await asyncio.to_thread(process.line, event)


@asynccontextmanager
async def serving(config: Path) -> AsyncIterator[Process]:
    process = Process(config)
    try:
        await line(process, "serving")
        yield process
    finally:
        process.close()


async def handed_over(process: Process) -> tuple[bool, str]:
    """Whether a chat goes on with ids in its body, and the record's reason if they are not the engine's."""
    async with grpc.aio.insecure_channel(process.address) as channel:
        _, answer = await send(channel, CHAT)
    metadata = json_format.MessageToDict(answer.dynamic_metadata)
    record = token_metadata.decode(metadata["tokenext"]["record"])
    assert len(record.token_ids) > 0  # routing goes on in any case
    in_body = b"token_data" in answer.request_body.response.body_mutation.body
    assert in_body is record.engine_exact
    return in_body, record.reason


def verify(config: Path, engine: Engine, tmp_path: Path) -> int:
    mismatch = str(tmp_path / "mismatch.json")
    arguments = ["--config", str(config), "--model", MODEL.name, "--engine", engine.url, "--output", mismatch]
    return main(["verify", *arguments])


def test_the_command_finds_the_models_ids_to_be_the_engines(engine, tmp_path, capsys):
    assert verify(write(tmp_path / "c.yaml"), engine, tmp_path) == 0
    told = capsys.readouterr().out
    assert f"clean: {len(PROBES)} of {len(PROBES)} probes: " in told
    assert told.count("  equal") > 40


def test_the_command_finds_another_template(engine, tmp_path, other_template, capsys):
    config = write(tmp_path / "c.yaml", chat_template=other_template)
    assert verify(config, engine, tmp_path) == 1
    kept = json.loads((tmp_path / "mismatch.json").read_text())
    assert kept["ours"][: kept["first_difference"]] == kept["theirs"][: kept["first_difference"]]
    assert kept["ours"] != kept["theirs"]
    assert "completion" not in kept["name"]  # those have no template
    assert "mismatch" in capsys.readouterr().out


def test_a_bundle_is_as_good_as_its_source(engine, tmp_path):
    assert main(["bundle", str(MODEL.folder), "-o", str(tmp_path / "b"), "--tokenizer", "file"]) == 0
    assert verify(write(tmp_path / "c.yaml", source=str(tmp_path / "b")), engine, tmp_path) == 0


async def test_handoff_goes_off_with_a_mismatch_and_comes_back_with_the_right_template(
    engine, tmp_path, other_template
):
    asked = {"engine": engine.url, "every_seconds": 1}
    config = write(tmp_path / "c.yaml", verify=asked, chat_template=other_template)
    async with serving(config) as process:
        assert await handed_over(process) == (False, "parity")
        metrics = await asyncio.to_thread(process.metrics)
        assert f'tokenext_parity_mismatch{{model="{MODEL.name}"}} 1.0' in metrics
        write(config, verify=asked)
        process.signal(signal.SIGHUP)
        told = await line(process, "parity_clean")
        assert told["probes"]["equal"] > 40
        assert await handed_over(process) == (True, "")
        metrics = await asyncio.to_thread(process.metrics)
        assert f'tokenext_parity_mismatch{{model="{MODEL.name}"}} 0.0' in metrics


async def test_a_mismatch_after_a_reload_is_an_error_line_without_content(engine, tmp_path, other_template):
    asked = {"engine": engine.url, "every_seconds": 1}
    config = write(tmp_path / "c.yaml", verify=asked)
    async with serving(config) as process:
        assert await handed_over(process) == (True, "")
        write(config, verify=asked, chat_template=other_template)
        process.signal(signal.SIGHUP)
        told = await line(process, "parity_mismatch")
        assert told.keys() == {
            "time", "level", "logger", "message", "model", "probe", "probes", "handoff",
        }  # fmt: skip
        assert told["probe"] in range(1, len(PROBES) + 1)
        assert await handed_over(process) == (False, "parity")


async def test_an_engine_that_is_not_there_changes_nothing_and_is_counted(tmp_path):
    asked = {"engine": f"http://{LOOPBACK}:9", "every_seconds": 1}
    async with serving(write(tmp_path / "c.yaml", verify=asked)) as process:
        assert await handed_over(process) == (True, "")
        metrics = await asyncio.to_thread(process.metrics)
        counted = f'tokenext_parity_rounds_total{{finding="inconclusive",model="{MODEL.name}"}}'
        assert counted in metrics
        assert f"{counted} 0.0" not in metrics
