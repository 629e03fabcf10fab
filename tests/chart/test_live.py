"""What the chart renders runs: its own files drive tokenext, the picker and Envoy on loopback."""

import asyncio
import json
import re
import ssl
import subprocess
import urllib.error
import urllib.request

import pytest

from loadtests.stack.envoy_clusters import TcpAddress, grpc_cluster
from loadtests.stack.model_source import DEFAULT_MODEL
from tests.chart import envoy_gateway_chain, istio_patches, kgateway_chain
from tests.chart.live import MODEL, live
from tests.chart.test_envoy import certificate

pytestmark = [pytest.mark.integration, pytest.mark.slow]


def ask(port, *, tls=False, timeout=30):
    """Status and document of one chat completion."""
    body = {"model": MODEL, "messages": [{"role": "user", "content": "How far is it to the hut?"}]}
    request = urllib.request.Request(
        f"{'https' if tls else 'http'}://127.0.0.1:{port}/v1/chat/completions",
        json.dumps(body).encode(),
        {"content-type": "application/json"},
    )
    context = ssl._create_unverified_context() if tls else None
    try:
        with urllib.request.urlopen(request, timeout=timeout, context=context) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        return error.code, {}


def used(port):
    """Where the picker found records that it used, by its metrics."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as response:
        text = response.read().decode()
    found = re.findall(
        r'^epp_adapter_records_total{outcome="used",source="(\w+)"} (\S+)$', text, re.MULTILINE
    )
    return {source for source, count in found if float(count)}


async def asked(chain, **how):
    return await asyncio.to_thread(ask, chain.ports.envoy, **how)


async def last_line(chain):
    async with asyncio.timeout(5):
        while not chain.access_log():  # noqa: ASYNC110  # no event tells
            await asyncio.sleep(0.05)
    return chain.access_log()[-1]


async def ids_reach_the_picker(chain, *, by, tls=False):
    """A request is answered by the worker that the picker chose, with a record that it found there."""
    status, answer = await asked(chain, tls=tls)
    assert status == 200
    worker = f"127.0.0.1:{chain.ports.worker}"
    assert answer["seen"]["headers"]["x-gateway-destination-endpoint"] == worker
    assert await asyncio.to_thread(used, chain.ports.epp_admin) == {by}


@pytest.mark.parametrize(
    ("values", "by"),
    [
        ({"tls": {"enabled": True, "secretName": "certificate"}}, "metadata"),
        ({"envoy": {"pool": "dns"}}, "metadata"),
        ({"tokenext": {"placement": "service"}}, "callout"),
        ({"tokenext": {"placement": "sidecar"}}, "callout"),
    ],
    ids=["tls", "dns-pool", "service", "sidecar"],
)
async def test_ids_reach_the_picker_through_the_rendered_chain(values, by, tmp_path):
    certificate(tmp_path)
    async with live(tmp_path, values) as chain:
        await ids_reach_the_picker(chain, by=by, tls="tls" in values)
        line = await last_line(chain)
        assert line["destination"] == f"127.0.0.1:{chain.ports.worker}"
        assert (line.get("token_count", 0) > 0) == (by == "metadata"), "a call writes no metadata"


async def test_the_rendered_chain_as_it_is_and_when_parts_of_it_end(tmp_path):
    async with live(tmp_path, {}) as chain:
        await ids_reach_the_picker(chain, by="metadata")
        await only_probes_are_shown(chain)
        await envoy_says_that_it_will_end(chain)
        chain.processes["tokenext"].kill()
        status, _ = await asked(chain)
        assert status == 200, "without tokenext requests go on without ids"
        chain.processes["epp"].kill()
        status, _ = await asked(chain)
        assert status == 503, "without the picker they are refused at once"


async def only_probes_are_shown(chain):
    """Of Envoy's admin interface others see /ready and metrics."""
    url = f"http://127.0.0.1:{chain.ports.envoy_probes}"

    def page(path):
        try:
            with urllib.request.urlopen(f"{url}{path}", timeout=5) as response:
                return response.status, response.read()
        except urllib.error.HTTPError as error:
            return error.code, b""

    assert (await asyncio.to_thread(page, "/ready"))[0] == 200
    assert b"ext_proc" in (await asyncio.to_thread(page, "/stats/prometheus"))[1]
    for path in ("/config_dump", "/quitquitquit", "/stats", "/"):
        assert (await asyncio.to_thread(page, path))[0] == 404, path


async def envoy_says_that_it_will_end(chain):
    """By its preStop hook: it is no longer ready, and serves whoever still comes."""
    (container,) = chain.release.one("Deployment", "-envoy")["spec"]["template"]["spec"]["containers"]
    command = container["lifecycle"]["preStop"]["exec"]["command"]
    script = command[-1].replace("127.0.0.1/9900", f"127.0.0.1/{chain.ports.envoy_admin}")
    assert script.endswith("sleep 120")
    hook = [*command[:-1], script.replace("sleep 120", "sleep 0")]
    await asyncio.to_thread(subprocess.run, hook, check=True, timeout=20)
    ready = f"http://127.0.0.1:{chain.ports.envoy_probes}/ready"
    with pytest.raises(urllib.error.HTTPError, match="503"):
        await asyncio.to_thread(urllib.request.urlopen, ready, timeout=5)
    status, _ = await asked(chain)
    assert status == 200


async def test_on_a_gateway_as_istio_builds_it_the_ids_reach_the_picker_in_envoys_own_namespace(tmp_path):
    def bootstrap(release, ports):
        gateway = istio_patches.gateway(
            TcpAddress("127.0.0.1", ports.epp),
            [TcpAddress("127.0.0.1", ports.worker)],
            TcpAddress("127.0.0.1", ports.envoy),
            TcpAddress("127.0.0.1", ports.envoy_admin),
            "/dev/stdout",
        )
        patched = istio_patches.apply(release.one("EnvoyFilter"), gateway)
        name = istio_patches.manager(patched)["httpFilters"][0]["typedConfig"]["grpcService"]["envoyGrpc"][
            "clusterName"
        ]
        tokenext = grpc_cluster(name, (TcpAddress("127.0.0.1", ports.tokenext),))
        patched["staticResources"]["clusters"].append(tokenext.to_dict())
        return patched

    async with live(tmp_path, {"provider": "istio"}, bootstrap) as chain:
        await ids_reach_the_picker(chain, by="metadata")
        assert (await last_line(chain))["destination"] == f"127.0.0.1:{chain.ports.worker}"


async def test_on_a_gateway_as_kgateway_builds_it_the_ids_reach_the_picker_in_the_body(tmp_path):
    """It lets tokenext write no metadata, forwards none of it, and calls the picker over TLS."""
    certificate(tmp_path)

    def bootstrap(release, ports):
        return kgateway_chain.gateway(
            release.one("GatewayExtension"),
            tokenext=TcpAddress("127.0.0.1", ports.tokenext),
            epp=TcpAddress("127.0.0.1", ports.epp_tls),
            workers=[TcpAddress("127.0.0.1", ports.worker)],
            listen=TcpAddress("127.0.0.1", ports.envoy),
            admin=TcpAddress("127.0.0.1", ports.envoy_admin),
        )

    models = [{"name": MODEL, "source": str(DEFAULT_MODEL), "handoff": "dynamo"}]
    values = {"provider": "kgateway", "httpRoute": {"create": True}, "models": models}
    async with live(tmp_path, values, bootstrap) as chain:
        await ids_reach_the_picker(chain, by="body")


async def test_on_a_gateway_as_envoy_gateway_builds_it_the_ids_reach_the_picker_in_metadata(tmp_path):
    def bootstrap(release, ports):
        return envoy_gateway_chain.gateway(
            release.one("EnvoyExtensionPolicy"),
            release.one("BackendTrafficPolicy"),
            services=[TcpAddress("127.0.0.1", ports.tokenext), TcpAddress("127.0.0.1", ports.epp)],
            workers=[TcpAddress("127.0.0.1", ports.worker)],
            listen=TcpAddress("127.0.0.1", ports.envoy),
            admin=TcpAddress("127.0.0.1", ports.envoy_admin),
        )

    values = {"provider": "envoygateway", "httpRoute": {"create": True}}
    async with live(tmp_path, values, bootstrap) as chain:
        await ids_reach_the_picker(chain, by="metadata")
        chain.processes["tokenext"].kill()
        assert (await asked(chain))[0] == 200
        chain.processes["epp"].kill()
        assert (await asked(chain))[0] == 500
