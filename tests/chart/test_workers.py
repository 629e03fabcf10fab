"""The chart's workers: pods that Kubernetes takes, and commands that Dynamo knows."""

import re
import subprocess
import sys

import pytest

from tests.chart import schemas
from tests.chart.matrix import WORKERS, merged
from tests.chart.rendering import render


def containers(values):
    spec = render(values).one("Deployment", "-worker")["spec"]["template"]["spec"]
    return {each["name"]: each for each in spec["containers"]}


def test_a_graphs_pod_template_is_one_that_kubernetes_takes():
    (component,) = render(WORKERS["graph"]).one("DynamoGraphDeployment")["spec"]["components"]
    template = component["podTemplate"]
    labels = template["metadata"]["labels"]
    schemas.check(
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": "as-the-operator-makes-it"},
            "spec": {"selector": {"matchLabels": labels}, "template": template},
        }
    )
    assert component["frontendSidecar"] in {each["name"] for each in template["spec"]["containers"]}


def test_a_graph_has_no_picker_of_its_own():
    components = render(WORKERS["graph"]).one("DynamoGraphDeployment")["spec"]["components"]
    assert [each["type"] for each in components] == ["decode"]


def test_the_picker_and_the_workers_name_the_same_endpoint_and_block_size():
    values = {"dynamo": {"namespace": "prod", "component": "decode"}, "workers": {"blockSize": 32}}
    arguments = containers(values)["main"]["args"]
    assert "--endpoint=dyn://prod.decode.generate" in arguments
    assert "--block-size=32" in arguments
    settings = render(values).config("epp", "epp.yaml")
    assert "endpoint: prod.decode.generate" in settings
    assert "block_size: 32" in settings


def test_workers_front_ends_and_the_picker_share_dynamos_planes():
    release = render({"dynamo": {"nats": {"url": "nats://nats:4222"}}})
    told = [
        {
            name: variable["value"]
            for variable in each["env"]
            if (name := variable["name"]).startswith(("DYN_", "NATS"))
        }
        for deployment in ("-worker", "-epp")
        for each in release.one("Deployment", deployment)["spec"]["template"]["spec"]["containers"]
    ]
    assert told[0] == {
        "DYN_DISCOVERY_BACKEND": "kubernetes",
        "DYN_REQUEST_PLANE": "tcp",
        "DYN_EVENT_PLANE": "nats",
        "NATS_SERVER": "nats://nats:4222",
    }
    assert all(each == told[0] for each in told)


def test_dynamo_finds_workers_before_their_front_ends_call_them_ready():
    release = render()
    service = release.one("Service", "-worker")
    assert service["spec"]["publishNotReadyAddresses"] is True
    assert service["metadata"]["labels"]["nvidia.com/dynamo-discovery-enabled"] == "true"
    assert "readinessProbe" in containers({})["frontend"]
    assert "readinessProbe" not in containers({})["main"], "it would have to be ready to become ready"


def test_gpus_are_asked_for_by_the_worker_and_not_by_its_front_end():
    found = containers(WORKERS["dynamo"])
    assert found["main"]["resources"] == {
        "limits": {"nvidia.com/gpu": "1"},
        "requests": {"nvidia.com/gpu": "1"},
    }
    assert "nvidia.com/gpu" not in found["frontend"]["resources"]["limits"]


def test_arguments_of_ones_own_come_last():
    for kind in ("mocker", "dynamo", "vllm"):
        values = merged(WORKERS[kind], {"workers": {"args": ["--speedup-ratio=10"]}})
        assert containers(values)["main"]["args"][-1] == "--speedup-ratio=10"


def test_an_own_command_replaces_the_chart_s():
    values = merged(
        WORKERS["dynamo"], {"workers": {"command": ["python3", "-m", "dynamo.sglang"], "args": ["--x"]}}
    )
    main = containers(values)["main"]
    assert (main["command"], main["args"]) == (["python3", "-m", "dynamo.sglang"], ["--x"])


@pytest.mark.integration
@pytest.mark.parametrize("container", ["main", "frontend"])
def test_dynamo_knows_every_option_that_its_processes_are_given(container):
    given = containers({})[container]
    module = given["command"][-1]
    told = subprocess.run(
        [sys.executable, "-m", module, "--help"], capture_output=True, text=True, timeout=60, check=True
    ).stdout
    options = {each.partition("=")[0] for each in given["args"]}
    assert options
    assert options <= set(re.findall(r"--[a-z0-9-]+", told))


def test_the_longest_release_name_still_makes_names_that_fit():
    from tests.chart.checks import names_and_labels_keep_kubernetes_limits

    names_and_labels_keep_kubernetes_limits(render(name="r" * 53))
    names_and_labels_keep_kubernetes_limits(render({"fullnameOverride": "f" * 63, "nameOverride": "n" * 63}))
