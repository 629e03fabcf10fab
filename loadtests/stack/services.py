"""Our own services as processes: how each is run, and with which settings file."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import yaml

from loadtests.stack.dynamo_parts import BLOCK_SIZE, ENDPOINT
from loadtests.stack.envoy_config import Address
from loadtests.stack.model_source import Model
from loadtests.stack.probes import LOOPBACK, grpc_serving, http_answers
from loadtests.stack.processes import ProcessSpec

__all__ = ["Endpoint", "echo_server", "epp_adapter", "passing", "tokenext", "write_endpoints"]

# The stack's own modules are no part of the wheel, so children are told where they are.
REPOSITORY: Final = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A model server as the EPP knows it; `dynamo_instance_id` is the worker beside it, if it is Dynamo's."""

    address: str
    dynamo_instance_id: str | None = None


def tokenext(
    folder: Path,
    name: str,
    model: Model,
    listen: Address,
    admin_port: int,
    *,
    handoff: str,
    settings: Mapping[str, object],
) -> ProcessSpec:
    """`settings` replace top-level keys of the settings file."""
    document = {
        "listen": str(listen),
        "admin": f"{LOOPBACK}:{admin_port}",
        "models": [{"name": model.name, "source": str(model.folder), "handoff": handoff}],
        **settings,
    }
    return _service("tokenext", folder, name, document=document, listen=listen, env={})


def epp_adapter(
    folder: Path,
    listen: Address,
    admin_port: int,
    endpoints_file: Path,
    *,
    name: str = "epp-adapter",
    dynamo_env: Mapping[str, str] | None,
    settings: Mapping[str, object],
) -> ProcessSpec:
    """With `dynamo_env` it routes by Dynamo's KV router, else round robin. `settings` as for tokenext."""
    strategies: dict[str, object] = {"round-robin": {"kind": "round-robin"}}
    if dynamo_env is not None:
        strategies["dynamo"] = {
            "kind": "dynamo",
            "endpoint": ENDPOINT,
            "block_size": BLOCK_SIZE,
            "discovery": "file",
            "request_plane": "tcp",
            "event_plane": "nats",
        }
    document = {
        "listen": str(listen),
        "admin": f"{LOOPBACK}:{admin_port}",
        "endpoints": {"file": str(endpoints_file), "poll_seconds": 0.2},
        "strategies": strategies,
        "default_strategy": "round-robin" if dynamo_env is None else "dynamo",
        "fallback": [] if dynamo_env is None else ["round-robin"],
        **settings,
    }
    return _service("epp_adapter", folder, name, document=document, listen=listen, env=dynamo_env or {})


def passing(name: str, listen: Address, *, carry: bool = False) -> ProcessSpec:
    """A service that lets everything pass, in the place of either; `carry`: as many bytes as with ids."""
    command = [sys.executable, "-m", "loadtests.stack.passing_ext_proc", "--listen", str(listen)]
    return ProcessSpec(
        name=name,
        command=(*command, *(("--carry",) if carry else ())),
        env={"PYTHONPATH": str(REPOSITORY)},
        ready=grpc_serving(str(listen)),
    )


def echo_server(name: str, port: int) -> ProcessSpec:
    return ProcessSpec(
        name=name,
        command=(sys.executable, "-m", "loadtests.stack.echo_server", "--port", str(port)),
        env={"PYTHONPATH": str(REPOSITORY)},
        ready=http_answers(f"http://{LOOPBACK}:{port}/"),
    )


def write_endpoints(path: Path, endpoints: Sequence[Endpoint]) -> None:
    """Replace the endpoints file at once, so that a reader sees the old one or the new one."""
    entries = [
        {"address": each.address}
        | ({"dynamo_instance_id": each.dynamo_instance_id} if each.dynamo_instance_id else {})
        for each in endpoints
    ]
    draft = path.with_suffix(".draft")
    draft.write_text(yaml.safe_dump({"endpoints": entries}, sort_keys=False), encoding="utf-8")
    draft.replace(path)


def _service(
    module: str,
    folder: Path,
    name: str,
    *,
    document: Mapping[str, object],
    listen: Address,
    env: Mapping[str, str],
) -> ProcessSpec:
    config = folder / f"{name}.yaml"
    config.write_text(yaml.safe_dump(dict(document), sort_keys=False), encoding="utf-8")
    return ProcessSpec(
        name=name,
        command=(sys.executable, "-m", module, "serve", "--config", str(config)),
        env={**env, "PYTHONUNBUFFERED": "1"},
        ready=grpc_serving(str(listen)),
    )
