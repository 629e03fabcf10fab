"""Envoy calls a service over mutual TLS, as docs/operations.md says."""

import asyncio
import re
from pathlib import Path

import pytest
import yaml

from extproc.errors import OverloadedError
from extproc.exchange import RefusingExchange
from extproc.server import Server, ServerOptions
from extproc.tls import TlsOptions
from tests.extproc.certificates import NAME, Files, Issued
from tests.integration.one_listener import TYPES, bootstrap, cluster, envoy, get, http2

pytestmark = pytest.mark.integration

PAGE = Path(__file__).parents[2] / "docs" / "operations.md"
REFUSED, NO_ANSWER = 429, 503


def transport_socket(folder: Path) -> dict:
    """The block of the page, with its files in `folder` and the name of our certificates."""
    block = re.search(r"<!-- envoy-tls -->\n\n```yaml\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert block is not None
    text = block[1].replace("/etc/envoy", str(folder)).replace("tokenext.example", NAME)
    return yaml.safe_load(text)["transport_socket"]


def config(service: str, socket: dict) -> dict:
    """Requests that the service decides; without it they are answered NO_ANSWER."""
    processor = {
        "@type": f"{TYPES}.filters.http.ext_proc.v3.ExternalProcessor",
        "grpc_service": {"envoy_grpc": {"cluster_name": "service"}},
        "status_on_error": {"code": NO_ANSWER},
        "message_timeout": "5s",
    }
    return bootstrap(
        [{"name": "processor", "typed_config": processor}],
        [cluster("service", service, transport_socket=socket, **http2())],
        {"direct_response": {"status": 200}},
    )


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
    async with envoy(tmp_path, config(server.tls_address, transport_socket(tmp_path))) as port:
        status, _ = await asyncio.to_thread(get, f"http://127.0.0.1:{port}/")
    assert status == (REFUSED if client == "signed" else NO_ANSWER)
    server.stop()
    await running
