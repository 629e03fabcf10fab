"""A real Envoy with one listener, for what a page tells people to write into its configuration."""

import asyncio
import re
import urllib.error
import urllib.request
from contextlib import asynccontextmanager
from pathlib import Path

import yaml

from loadtests.stack import envoy_binary

__all__ = ["TYPES", "bootstrap", "cluster", "envoy", "get", "http2"]

TYPES = "type.googleapis.com/envoy.extensions"
_LOOPBACK = {"socket_address": {"address": "127.0.0.1", "port_value": 0}}


def cluster(name: str, address: str, **more) -> dict:
    """One endpoint: host:port or unix:/path."""
    if address.startswith("unix:"):
        where = {"pipe": {"path": address.removeprefix("unix:")}}
    else:
        host, _, port = address.rpartition(":")
        where = {"socket_address": {"address": host, "port_value": int(port)}}
    endpoints = [{"lb_endpoints": [{"endpoint": {"address": where}}]}]
    return {"name": name, "load_assignment": {"cluster_name": name, "endpoints": endpoints}, **more}


def http2() -> dict:
    """For a cluster that speaks gRPC."""
    kind = f"{TYPES}.upstreams.http.v3.HttpProtocolOptions"
    options = {"@type": kind, "explicit_http_config": {"http2_protocol_options": {}}}
    return {
        "typed_extension_protocol_options": {
            kind.removeprefix("type.googleapis.com/"): options,
        }
    }


def bootstrap(filters: list[dict], clusters: list[dict], route: dict) -> dict:
    """One listener whose requests pass `filters` and then `route`."""
    manager = {
        "@type": f"{TYPES}.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "in",
        "http_filters": [
            *filters,
            {"name": "router", "typed_config": {"@type": f"{TYPES}.filters.http.router.v3.Router"}},
        ],
        "route_config": {
            "virtual_hosts": [
                {"name": "all", "domains": ["*"], "routes": [{"match": {"prefix": "/"}, **route}]}
            ]
        },
    }
    listener = {
        "name": "in",
        "address": _LOOPBACK,
        "filter_chains": [{"filters": [{"name": "http", "typed_config": manager}]}],
    }
    return {
        "admin": {"address": _LOOPBACK},
        "static_resources": {"listeners": [listener], "clusters": clusters},
    }


@asynccontextmanager
async def envoy(folder: Path, config: dict):
    """The port of a running Envoy's listener."""
    path, admin = folder / "envoy.yaml", folder / "admin"
    path.write_text(yaml.safe_dump(config))
    command = envoy_binary.command(envoy_binary.find(), path, worker_threads=1)
    process = await asyncio.create_subprocess_exec(*command, "--admin-address-path", str(admin))
    try:
        async with asyncio.timeout(20):
            while True:
                if admin.exists() and (text := admin.read_text()):
                    told = await asyncio.to_thread(get, f"http://{text}/listeners")
                    if found := re.search(r":(\d+)$", told[1].strip()):
                        break
                await asyncio.sleep(0.05)
        yield int(found[1])
    finally:
        process.kill()
        await process.wait()


def get(url: str) -> tuple[int, str]:
    """Status and body; the latter is empty of an error."""
    try:
        with urllib.request.urlopen(url, timeout=10) as response:
            return response.status, response.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, ""
