"""`epp-adapter` with `kind: internal`, as its users meet it."""

import asyncio
import socket
import time

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from epp_adapter.__main__ import main
from epp_adapter.kv_events import StreamOutcome
from epp_adapter.routing.prefix_index import Applied
from epp_adapter.scheduler_metrics import SchedulerMetrics

SETTINGS = """\
listen: 127.0.0.1:0
endpoints: {file: endpoints.yaml}
strategies:
  internal: {kind: internal, config: picker.yaml}
default_strategy: internal
drain_seconds: 1
"""
PICKER = "apiVersion: llm-d.ai/v1alpha1\nkind: EndpointPickerConfig\nplugins: [{type: queue-scorer}]\n"


@pytest.fixture
def config(tmp_path):
    (tmp_path / "endpoints.yaml").write_text(
        'endpoints: [{address: "127.0.0.1:8001", labels: {llm-d.ai/role: decode}}]'
    )
    (tmp_path / "picker.yaml").write_text(PICKER)
    path = tmp_path / "epp.yaml"
    path.write_text(SETTINGS)
    return path


def test_check_reads_the_endpoint_picker_config_too(config, capsys):
    assert main(["serve", "--config", str(config), "--check"]) == 0
    assert capsys.readouterr().out == f"{config}: ok, 1 strategies, 1 endpoints\n"


@pytest.mark.parametrize("check", [[], ["--check"]])
def test_an_unsupported_plugin_is_one_line_with_file_name_type_and_the_supported_ones(config, capsys, check):
    picker = config.parent / "picker.yaml"
    picker.write_text(PICKER.replace("queue-scorer", "latency-scorer"))
    assert main(["serve", "--config", str(config), *check]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(
        f"epp-adapter: {picker}: plugins[0].type: plugin 'latency-scorer' has type 'latency-scorer', which is"
    )
    assert "queue-scorer" in line


@pytest.mark.parametrize(
    ("events", "message"),
    [
        ("{kind: dynamo, endpoint: backend}", "kv_events.endpoint: is not namespace.component.endpoint"),
        ("{kind: vllm, bind: '5557'}", "kv_events.bind: is not tcp://host:port or ipc:///path"),
        ("{kind: vllm, bind: 'tcp://127.0.0.1:5557', replay_port: 5}", "kv_events: replay_port and data_"),
        ("{kind: kafka}", "kind: Invalid value 'kafka'"),
    ],
)
def test_a_mistake_in_kv_events_names_the_key(config, capsys, events, message):
    config.write_text(SETTINGS.replace("config: picker.yaml", f"kv_events: {events}"))
    assert main(["serve", "--config", str(config), "--check"]) == 2
    assert message in capsys.readouterr().err


def test_a_port_for_kv_events_that_is_taken_is_one_line_and_exit_code_1(config, capsys):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        events = f"kv_events: {{kind: vllm, bind: 'tcp://127.0.0.1:{port}'}}"
        config.write_text(SETTINGS.replace("config: picker.yaml", events))
        started = time.monotonic()
        assert main(["serve", "--config", str(config)]) == 1
        assert time.monotonic() - started < 10
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("epp-adapter: ")]
    assert errors == [
        (
            f"epp-adapter: cannot listen for KV events on tcp://127.0.0.1:{port}: Address already in use"
            f" (addr='tcp://127.0.0.1:{port}')"
        )
    ]
    asyncio.set_event_loop(None)


def test_the_schedulers_metrics_are_there_from_the_start_and_count():
    registry = CollectorRegistry()
    metrics = SchedulerMetrics(registry)
    metrics.watch("internal", lambda: 3, lambda: 40)
    observe = metrics.kv_events("internal")
    observe(Applied.STORED, 2)
    observe(StreamOutcome.GAP, 1)
    text = generate_latest(registry).decode()
    for sample in (
        'epp_adapter_requests_in_flight{strategy="internal"} 3.0',
        'epp_adapter_prefix_blocks{strategy="internal"} 40.0',
        'epp_adapter_kv_events_total{outcome="stored",strategy="internal"} 2.0',
        'epp_adapter_kv_events_total{outcome="gap",strategy="internal"} 1.0',
        'epp_adapter_kv_events_total{outcome="full",strategy="internal"} 0.0',
    ):
        assert sample in text
