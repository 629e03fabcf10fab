"""A release's own files on loopback: settings, Envoy's bootstrap and the InferencePool drive real processes.

Only addresses are changed, as a cluster would resolve them: service names become 127.0.0.1. The API server is
a small one of ours, which holds the rendered InferencePool and one pod.
"""

import asyncio
import json
import re
import sys
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from loadtests.stack import envoy_binary
from loadtests.stack.model_source import DEFAULT_MODEL
from loadtests.stack.probes import free_ports, grpc_serving, http_answers
from loadtests.stack.processes import ManagedProcess, ProcessSpec, Supervisor
from tests.chart.matrix import Values, merged
from tests.chart.rendering import REPOSITORY, Rendered, render
from tests.epp_adapter.fake_kube import fake_kube
from tests.epp_adapter.kube_objects import PODS, POOLS, pod

MODEL = "stack-model"
HERE = {"PYTHONPATH": f"{REPOSITORY}:{REPOSITORY / 'proto'}", "PYTHONUNBUFFERED": "1"}
PYTHON = (sys.executable, "-m")


@dataclass(frozen=True)
class Ports:
    tokenext: int
    tokenext_admin: int
    epp: int
    epp_admin: int
    epp_tls: int
    envoy: int
    envoy_probes: int
    envoy_admin: int
    worker: int


def values_for(ports: Ports, more: Values) -> Values:
    """A release without a cluster's conveniences: an own model folder, and workers that are there already."""
    return merged(
        {
            "models": [{"name": MODEL, "source": str(DEFAULT_MODEL), "handoff": "vllm"}],
            "modelStore": {"bundle": False},
            "workers": {"kind": "none"},
            "pool": {"selector": {"app": "vllm"}, "targetPorts": [ports.worker]},
            "tokenext": {"port": ports.tokenext, "adminPort": ports.tokenext_admin},
            "epp": {"port": ports.epp, "adminPort": ports.epp_admin, "drainSeconds": 1},
            "envoy": {"port": ports.envoy, "adminPort": ports.envoy_probes},
        },
        more,
    )


def local(text: str, folder: Path) -> str:
    """As a cluster's DNS would have it, with everything in one pod on loopback; sockets are in `folder`."""
    text = re.sub(
        r"[a-z0-9-]+\.ns\.svc\.cluster\.local|\brel-tokenext-chain-[a-z-]+(?=:\d)", "127.0.0.1", text
    )
    return text.replace("0.0.0.0", "127.0.0.1").replace("/run/tokenext", str(folder))


@dataclass(frozen=True)
class Live:
    release: Rendered
    ports: Ports
    processes: dict[str, ManagedProcess]
    folder: Path

    def access_log(self) -> list[dict[str, Any]]:
        text = self.processes["envoy"].log.read_text()
        return [json.loads(line) for line in text.splitlines() if line.startswith("{")]


@asynccontextmanager
async def live(folder: Path, more: Values, bootstrap=None):
    """The release's services, ready. `bootstrap` makes Envoy's configuration where the chart has no Envoy."""
    ports = Ports(*free_ports(9))
    release = render(values_for(ports, more))
    async with fake_kube() as (kube, url):
        await kube[POOLS].put(release.one("InferencePool"))
        await kube[PODS].put(pod("worker-0", "127.0.0.1"))
        with Supervisor(folder) as supervisor:
            specs = _specs(release, ports, folder, url, bootstrap)
            processes = {spec.name: supervisor.start(spec) for spec in specs}
            await asyncio.to_thread(supervisor.wait_ready, processes.values(), deadline_seconds=90)
            yield Live(release, ports, processes, folder)


@asynccontextmanager
async def live_tier(folder: Path, more: Values):
    """The release of tokenext alone, ready: what is rendered, with its addresses on loopback."""
    port, admin, http = free_ports(3)
    values: Values = {
        "epp": {"enabled": False},
        "models": [{"name": MODEL, "source": str(DEFAULT_MODEL), "profile": "vllm"}],
        "modelStore": {"bundle": False},
        "tokenext": {"port": port, "adminPort": admin, "http": {"enabled": True, "port": http}},
    }
    release = render(merged(values, more))
    with Supervisor(folder) as supervisor:
        process = supervisor.start(_tokenext(release, folder))
        await asyncio.to_thread(supervisor.wait_ready, [process], deadline_seconds=90)
        yield release


def _specs(release: Rendered, ports: Ports, folder: Path, api_server: str, bootstrap) -> list[ProcessSpec]:
    epp = folder / "epp.yaml"
    settings = yaml.safe_load(local(release.config("epp", "epp.yaml"), folder))
    settings["endpoints"]["pool"] |= {"namespace": "ns", "api_server": api_server}
    if "tls" in settings:  # where the pod's own certificate would be
        files = {"certificate": str(folder / "tls.crt"), "key": str(folder / "tls.key")}
        settings["tls"] |= {"listen": f"127.0.0.1:{ports.epp_tls}", **files}
    epp.write_text(yaml.safe_dump(settings))
    config = folder / "envoy.json"
    if bootstrap is None:
        files = release.one("ConfigMap", "-envoy")["data"]
        text = local(files["envoy.json"], folder).replace(
            '"portValue": 9900', f'"portValue": {ports.envoy_admin}'
        )
        config.write_text(text.replace("/etc/envoy/secrets.json", str(folder / "secrets.json")))
        if "secrets.json" in files:
            (folder / "secrets.json").write_text(files["secrets.json"].replace("/etc/envoy/tls", str(folder)))
    else:
        config.write_text(json.dumps(bootstrap(release, ports)))
    binary = envoy_binary.find()
    return [
        ProcessSpec(
            "worker",
            (*PYTHON, "tests.integration.model_upstream", "--port", str(ports.worker)),
            HERE,
            http_answers(f"http://127.0.0.1:{ports.worker}/health"),
        ),
        _tokenext(release, folder),
        ProcessSpec(
            "epp", (*PYTHON, *_arguments(release, "epp", epp)), HERE, grpc_serving(f"127.0.0.1:{ports.epp}")
        ),
        ProcessSpec(
            "envoy",
            envoy_binary.command(binary, config, worker_threads=1),
            ready=http_answers(f"http://127.0.0.1:{ports.envoy_admin}/ready"),
        ),
    ]


def _tokenext(release: Rendered, folder: Path) -> ProcessSpec:
    config = folder / "tokenext.yaml"
    config.write_text(local(release.config("tokenext", "tokenext.yaml"), folder))
    return ProcessSpec(
        "tokenext",
        (*PYTHON, *_arguments(release, "tokenext", config)),
        HERE,
        grpc_serving(yaml.safe_load(config.read_text())["listen"]),
    )


def _arguments(release: Rendered, name: str, config: Path) -> list[str]:
    """What the container runs, with its settings file where ours is."""
    for each in release.of("Deployment"):
        for container in each["spec"]["template"]["spec"]["containers"]:
            if container["name"] == name:
                (command,) = container["command"]
                arguments = [re.sub(r"--config=.*", f"--config={config}", each) for each in container["args"]]
                return [command.replace("-", "_"), *arguments]
    raise LookupError(name)
