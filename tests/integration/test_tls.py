"""Envoy calls a service over mutual TLS, as docs/operations.md says."""

import asyncio
import re
import urllib.error
import urllib.request
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import yaml

from extproc.errors import OverloadedError
from extproc.exchange import RefusingExchange
from extproc.server import Server, ServerOptions
from extproc.tls import TlsOptions
from loadtests.stack import envoy_binary
from tests.extproc.certificates import NAME, Files, Issued

pytestmark = pytest.mark.integration

PAGE = Path(__file__).parents[2] / "docs" / "operations.md"
TYPES = "type.googleapis.com/envoy.extensions.filters"
REFUSED, NO_ANSWER = 429, 503


def transport_socket(folder: Path) -> dict:
    """The block of the page, with its files in `folder` and the name of our certificates."""
    block = re.search(r"<!-- envoy-tls -->\n\n```yaml\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert block is not None
    text = block[1].replace("/etc/envoy", str(folder)).replace("tokenext.example", NAME)
    return yaml.safe_load(text)["transport_socket"]


def bootstrap(service: str, socket: dict) -> dict:
    """One listener whose requests the service decides; without it they are answered NO_ANSWER."""
    host, _, port = service.rpartition(":")
    http2 = {"explicit_http_config": {"http2_protocol_options": {}}}
    cluster = {
        "name": "service",
        "load_assignment": {"cluster_name": "service", "endpoints": [{"lb_endpoints": [
            {"endpoint": {"address": {"socket_address": {"address": host, "port_value": int(port)}}}},
        ]}]},
        "typed_extension_protocol_options": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
            "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions", **http2,
        }},
        "transport_socket": socket,
    }  # fmt: skip
    processor = {
        "@type": f"{TYPES}.http.ext_proc.v3.ExternalProcessor",
        "grpc_service": {"envoy_grpc": {"cluster_name": "service"}},
        "status_on_error": {"code": NO_ANSWER},
        "message_timeout": "5s",
    }
    routes = [{"match": {"prefix": "/"}, "direct_response": {"status": 200}}]
    manager = {
        "@type": f"{TYPES}.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "in",
        "http_filters": [
            {"name": "processor", "typed_config": processor},
            {"name": "router", "typed_config": {"@type": f"{TYPES}.http.router.v3.Router"}},
        ],
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": routes}]},
    }
    listener = {
        "name": "in",
        "address": {"socket_address": {"address": "127.0.0.1", "port_value": 0}},
        "filter_chains": [{"filters": [{"name": "http", "typed_config": manager}]}],
    }
    return {
        "admin": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": 0}}},
        "static_resources": {"listeners": [listener], "clusters": [cluster]},
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
    try:
        with urllib.request.urlopen(url, timeout=10) as response:
            return response.status, response.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, ""


@pytest.mark.parametrize("client", ["signed", "a stranger's"])
async def test_envoy_reaches_a_service_by_mutual_tls_as_the_page_says(tmp_path, client):
    authority = Issued()
    files = Files(tmp_path)
    files.write(Issued(authority))
    files.trust(authority)
    own = Issued(authority if client == "signed" else Issued())
    (tmp_path / "client.crt").write_bytes(own.certificate)
    (tmp_path / "client.key").write_bytes(own.private)
    tls = TlsOptions("127.0.0.1:0", tmp_path / "tls.crt", tmp_path / "tls.key", tmp_path / "ca.crt")
    refusing = RefusingExchange(OverloadedError("it was asked"))
    server = Server(ServerOptions("127.0.0.1:0", drain_seconds=0, tls=tls), lambda: refusing)
    await server.start()
    running = asyncio.create_task(server.run_until_stopped())
    assert server.tls_address is not None
    config = bootstrap(server.tls_address, transport_socket(tmp_path))
    async with envoy(tmp_path, config) as port:
        status, _ = await asyncio.to_thread(get, f"http://127.0.0.1:{port}/")
    assert status == (REFUSED if client == "signed" else NO_ANSWER)
    server.stop()
    await running
