"""The standalone Envoy's bootstrap is the generator's own, and Envoy takes it."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from loadtests.stack import envoy_binary
from loadtests.stack.chart_envoy import FILE, options, parts
from loadtests.stack.envoy_config import render as rendered_by_generator
from tests.chart.envoy_of_values import expected
from tests.chart.matrix import sample
from tests.chart.rendering import CHART, render


def standalone(chosen):
    return {
        name: values
        for name, values in chosen
        if values.get("provider", "standalone") == "standalone" and values.get("epp", {}).get("enabled", True)
    }


SAMPLE = standalone(sample())


def test_the_charts_parts_are_what_the_generator_makes():
    assert FILE.parent == CHART / "files"
    assert json.loads(FILE.read_text()) == parts(), "run: python -m loadtests.stack.chart_envoy"


@pytest.mark.parametrize("name", SAMPLE)
def test_a_rendered_bootstrap_is_the_generators_for_the_same_values(name):
    bootstrap = json.loads(render(SAMPLE[name]).config("envoy", "envoy.json"))
    assert bootstrap == json.loads(rendered_by_generator(options(expected(SAMPLE[name]))))


def test_tokenext_stands_before_the_picker_and_the_picker_before_the_router():
    bootstrap = json.loads(render().config("envoy", "envoy.json"))
    manager = bootstrap["staticResources"]["listeners"][0]["filterChains"][0]["filters"][0]["typedConfig"]
    assert [each["name"].rpartition(".")[2] for each in manager["httpFilters"]] == [
        "tokenext",
        "epp",
        "router",
    ]
    tokenext, epp, _ = (each["typedConfig"] for each in manager["httpFilters"])
    assert tokenext["metadataOptions"]["receivingNamespaces"]["untyped"] == ["tokenext"]
    assert "tokenext" in epp["metadataOptions"]["forwardingNamespaces"]["untyped"]


def test_each_process_of_each_pod_is_an_endpoint():
    bootstrap = json.loads(render({"tokenext": {"processes": 3}}).config("envoy", "envoy.json"))
    (cluster,) = [each for each in bootstrap["staticResources"]["clusters"] if each["name"] == "tokenext"]
    addresses = [
        each["endpoint"]["address"]["socketAddress"]
        for each in cluster["loadAssignment"]["endpoints"][0]["lbEndpoints"]
    ]
    host = "rel-tokenext-chain-tokenext-pods.ns.svc.cluster.local"
    assert addresses == [{"address": host, "portValue": port} for port in (9000, 9001, 9002)]
    assert (cluster["type"], cluster["lbPolicy"]) == ("STRICT_DNS", "LEAST_REQUEST")


def certificate(folder: Path) -> None:
    """tls.crt and tls.key, as a Secret of type kubernetes.io/tls has them."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "chain.test")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now)
        .not_valid_after(now + timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    (folder / "tls.crt").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    (folder / "tls.key").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )


@pytest.mark.integration
def test_envoy_takes_every_different_bootstrap(tmp_path):
    binary = envoy_binary.find()
    certificate(tmp_path)
    seen = set()
    for name, values in SAMPLE.items():
        files = render(values).one("ConfigMap", "-envoy")["data"]
        text = files["envoy.json"]
        if text in seen:
            continue
        seen.add(text)
        if "secrets.json" in files:
            (tmp_path / "secrets.json").write_text(
                files["secrets.json"].replace("/etc/envoy/tls", str(tmp_path))
            )
            text = text.replace("/etc/envoy/secrets.json", str(tmp_path / "secrets.json"))
        config = tmp_path / f"{name}.json"
        config.write_text(text)
        envoy_binary.validate(binary, config)
    assert len(seen) >= 10
