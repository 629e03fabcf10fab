"""A Dynamo deployment on loopback for tests: NATS, and mocker workers found through a directory."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from loadtests.stack.probes import free_ports, http_answers

ENDPOINT = "dyn.backend.generate"
BLOCK_SIZE = 16
VOCABULARY = 384
START_SECONDS = 60.0
STOP_SECONDS = 10.0


@dataclass(frozen=True)
class Deployment:
    """`environment` is what Dynamo reads to join it."""

    environment: Mapping[str, str]
    workers: int


@contextmanager
def deployment(folder: Path, workers: int = 3, arguments: Sequence[str] = ()) -> Iterator[Deployment]:
    """Start everything, wait until all workers are registered, and end every process by its id."""
    with plane(folder) as environment, mockers(folder, environment, ENDPOINT, workers, arguments):
        yield Deployment(environment, workers)


@contextmanager
def plane(folder: Path) -> Iterator[Mapping[str, str]]:
    """What workers and routers share: NATS, the model's files, and the environment that joins them."""
    with nats(folder) as url:
        write_model(folder / "model")
        yield {
            "NATS_SERVER": url,
            "DYN_DISCOVERY_BACKEND": "file",
            "DYN_FILE_KV": str(folder / "discovery"),
            "DYN_REQUEST_PLANE": "tcp",
            "DYN_EVENT_PLANE": "nats",
            # Without these four Dynamo listens on other addresses than loopback.
            "DYN_TCP_RPC_HOST": "127.0.0.1",
            "DYN_TCP_RESPONSE_STREAM_HOST": "127.0.0.1",
            "DYN_EVENT_PLANE_HOST": "127.0.0.1",
            "DYN_SYSTEM_HOST": "127.0.0.1",
            "DYN_LOG": "warn",
            "HF_HUB_OFFLINE": "1",
        }


@contextmanager
def mockers(
    folder: Path,
    environment: Mapping[str, str],
    endpoint: str = ENDPOINT,
    workers: int = 1,
    arguments: Sequence[str] = (),
) -> Iterator["subprocess.Popen[bytes]"]:
    """A process with so many workers, all registered. `arguments` come last and so win."""
    log = folder / f"{endpoint}.log"
    command = [sys.executable, "-m", "dynamo.mocker", "--model-name", "tiny"]
    command += ["--model-path", str(folder / "model"), "--endpoint", f"dyn://{endpoint}"]
    command += ["--num-workers", str(workers), "--block-size", str(BLOCK_SIZE)]
    command += ["--num-gpu-blocks-override", "8192", "--speedup-ratio", "20"]
    command += ["--kv-bytes-per-token", "114688", *arguments]
    discovery = Path(environment["DYN_FILE_KV"])
    with process(command, log, environment) as running:
        _wait(lambda: len(instance_ids(discovery, endpoint)) >= workers, running, log)
        yield running


@contextmanager
def frontend(folder: Path, environment: Mapping[str, str]) -> Iterator[str]:
    """A front end in direct mode, which is ready when it lists its model; yields its URL."""
    (port,) = free_ports(1)
    command = [sys.executable, "-m", "dynamo.frontend", "--router-mode", "direct"]
    command += ["--http-host", "127.0.0.1", "--http-port", str(port)]
    log = folder / "frontend.log"
    url = f"http://127.0.0.1:{port}"
    with process(command, log, environment) as running:
        _wait(http_answers(f"{url}/v1/models", having=lambda body: b"tiny" in body), running, log)
        yield url


def instance_ids(discovery: Path, endpoint: str = ENDPOINT) -> list[int]:
    """Dynamo's file discovery keeps a JSON file for each endpoint of each running worker."""
    found = set()
    for path in discovery.glob("v1/instances/*"):
        try:
            instance = json.loads(path.read_bytes())
        except (OSError, ValueError):  # it is gone, or being written
            continue
        if ".".join(instance[key] for key in ("namespace", "component", "endpoint")) == endpoint:
            found.add(instance["instance_id"])
    return sorted(found)


@contextmanager
def nats(folder: Path) -> Iterator[str]:
    """A NATS server on a free port of its own choice; yields its URL."""
    ports = folder / "ports"
    ports.mkdir()
    binary = str(Path(sys.executable).with_name("nats-server"))
    command = [binary, "-a", "127.0.0.1", "-p", "-1", "--ports_file_dir", str(ports)]
    with process(command, folder / "nats.log", {}) as running:
        _wait(lambda: any(path.read_text().strip() for path in ports.glob("*")), running, folder / "nats.log")
        (written,) = ports.glob("*")
        yield json.loads(written.read_text())["nats"][0]


@contextmanager
def process(
    command: list[str], log: Path, environment: Mapping[str, str]
) -> Iterator["subprocess.Popen[bytes]"]:
    """A process in a group of its own, so that its children end with it."""
    with log.open("wb") as output:
        running = subprocess.Popen(
            command,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, **environment},
            start_new_session=True,
        )
        try:
            yield running
        finally:
            stop(running)


def stop(running: "subprocess.Popen[bytes]") -> int:
    """SIGTERM, then SIGKILL to the group; returns the exit code."""
    if running.poll() is None:
        running.send_signal(signal.SIGTERM)
        try:
            running.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(running.pid, signal.SIGKILL)
    return running.wait(STOP_SECONDS)


def write_model(folder: Path) -> None:
    """A byte-level BPE and the files that a mocker wants beside it; trained here, nothing is downloaded."""
    folder.mkdir()
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=["<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(["one request is tokenized once, and then it is routed"] * 10, trainer)
    tokenizer.save(str(folder / "tokenizer.json"))
    ends = {"bos_token_id": 0, "eos_token_id": 1}
    sizes = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2}
    architecture = {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "num_key_value_heads": 2}
    limits = {"vocab_size": VOCABULARY, "max_position_embeddings": 131072, "torch_dtype": "float16"}
    _write(folder / "config.json", architecture | sizes | limits | ends)
    _write(folder / "generation_config.json", ends)
    template = "{% for message in messages %}{{ message['content'] }}\n{% endfor %}"
    kind = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<s>", "eos_token": "</s>"}
    _write(folder / "tokenizer_config.json", kind | {"chat_template": template, "model_max_length": 131072})


def _write(path: Path, value: object) -> None:
    path.write_text(json.dumps(value))


def _wait(condition, running: "subprocess.Popen[bytes]", log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not condition():
        if running.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"did not start: {log.read_text()[-2000:]}")
        time.sleep(0.05)
