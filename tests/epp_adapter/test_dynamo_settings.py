"""The settings of Dynamo's strategies: Dynamo's own names, checked strictly before Dynamo sees them."""

import inspect

import pytest

from epp_adapter.dynamo_settings import DynamoSelectionSettings, DynamoSettings, RouterSettings
from epp_adapter.settings import parse_settings
from extproc.settings_file import SettingsError

FILE = """\
listen: unix:/run/epp.sock
endpoints: {{file: endpoints.yaml}}
strategies:
  it: {{{strategy}}}
default_strategy: it
{more}
"""
DYNAMO = "kind: dynamo, endpoint: dyn.backend.generate, block_size: 16"
SELECTION = "kind: dynamo-selection, block_size: 16"


def parse(strategy: str, more: str = ""):
    return parse_settings(FILE.format(strategy=strategy, more=more).encode(), source="epp.yaml")


def strategy(text: str):
    return parse(text).strategies["it"]


def test_what_is_left_out_stays_dynamos_default():
    assert strategy(DYNAMO) == DynamoSettings(endpoint="dyn.backend.generate", block_size=16)
    assert strategy(DYNAMO).router.arguments() == {}


def test_the_routers_options_have_dynamos_names():
    chosen = strategy(
        f"{DYNAMO}, router: {{overlap_score_credit: 2, router_replica_sync: true,"
        " router_predicted_ttl_secs: 5}"
    )
    assert chosen.router.arguments() == {
        "overlap_score_credit": 2.0,
        "router_replica_sync": True,
        "router_predicted_ttl_secs": 5.0,
    }


def test_every_option_is_one_that_this_version_of_dynamo_takes():
    dynamo = pytest.importorskip("dynamo.llm")
    taken = inspect.signature(dynamo.KvRouterConfig).parameters
    assert set(RouterSettings.__struct_fields__) <= set(taken)
    everything = {name: value for name, value in VALUES.items() if name not in CONFLICTING}
    assert set(everything) | CONFLICTING == set(RouterSettings.__struct_fields__)
    dynamo.KvRouterConfig(**everything)


VALUES = {
    "overlap_score_credit": 1.0,
    "overlap_score_credit_decay": 0.1,
    "prefill_load_scale": 1.0,
    "decode_active_request_weight": 0.5,
    "host_cache_hit_weight": 0.75,
    "disk_cache_hit_weight": 0.25,
    "router_temperature": 0.1,
    "use_kv_events": True,
    "router_replica_sync": True,
    "router_track_active_blocks": True,
    "router_assume_kv_reuse": True,
    "router_track_prefill_tokens": True,
    "router_ttl_secs": 60.0,
    "router_predicted_ttl_secs": 5.0,
    "router_queue_threshold": 0.9,
    "router_queue_policy": "wspt",
    "router_event_threads": 2,
    "use_remote_indexer": False,
}
CONFLICTING = {"router_approximate_cache_policy", "router_policy_config"}  # lru: no events; the other: a file


def test_a_disaggregated_graph_has_a_second_endpoint_and_priorities_have_classes():
    chosen = strategy(f"{DYNAMO}, prefill_endpoint: dyn.prefill.generate, policy_classes: {{chat: 10}}")
    assert chosen.prefill_endpoint == "dyn.prefill.generate"
    assert chosen.policy_classes == {"chat": 10}


def test_a_selection_has_its_events_its_peers_and_its_overrides():
    chosen = strategy(
        f"{SELECTION}, kv_events: {{port: 6000, port_label: kv, replay_offset: 1}}, replica_sync_port: 7000,"
        " replica_sync_peers: ['tcp://10.0.0.2:7000'], overrides: {router_temperature: 0.5}"
    )
    assert isinstance(chosen, DynamoSelectionSettings)
    assert (chosen.kv_events.port, chosen.kv_events.replay_offset) == (6000, 1)
    assert chosen.overrides.arguments() == {"router_temperature": 0.5}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            f"{DYNAMO}, router: {{overlap_weight: 1}}",
            "router: Object contains unknown field `overlap_weight`",
        ),
        (
            f"{DYNAMO}, router: {{overlap_score_credit: -1}}",
            "router.overlap_score_credit: Expected `float` >= 0",
        ),
        (
            f"{DYNAMO}, router: {{router_queue_policy: lifo}}",
            "router_queue_policy: Invalid enum value 'lifo'",
        ),
        (
            f"{DYNAMO}, prefill_endpoint: prefill",
            "strategies.it.prefill_endpoint: is not namespace.component",
        ),
        (
            f"{DYNAMO}, prefill_endpoint: dyn.backend.generate",
            "prefill_endpoint: is the endpoint that generates",
        ),
        (
            f"{DYNAMO}, router: {{use_kv_events: false, router_predicted_ttl_secs: 5}}",
            "strategies.it.router.router_predicted_ttl_secs: needs use_kv_events",
        ),
        (
            f"{DYNAMO}, router: {{router_approximate_cache_policy: lru}}",
            "router.router_approximate_cache_policy: lru needs use_kv_events: false",
        ),
        (f"{SELECTION}, kv_events: {{port: 0}}", "kv_events.port: Expected `int` >= 1"),
        (
            f"{SELECTION}, data_parallel_size: 2, kv_events: {{replay_offset: 1}}",
            "kv_events.replay_offset: Dynamo asks one replay address",
        ),
        (f"{SELECTION}, replica_sync_peers: ['tcp://h:1']", "replica_sync_peers: needs replica_sync_port"),
        (
            f"{SELECTION}, replica_sync_port: 1, replica_sync_peers: [h]",
            "replica_sync_peers[0]: Expected `str`",
        ),
        (f"{SELECTION}, overrides: {{use_kv_events: true}}", "overrides: Object contains unknown field"),
    ],
)
def test_a_mistake_is_refused_with_its_key(text, message):
    with pytest.raises(SettingsError) as caught:
        parse(text)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ("models: {m: {strategy: its}}", "models.m.strategy: 'its' is none of the strategies (it)"),
        ("models: {m: {tokenizer_digest: abc}}", "models[...].tokenizer_digest: Expected `str` matching"),
        ("models: {m: {weight: 1}}", "models[...]: Object contains unknown field `weight`"),
        ("tokenization: {address: nowhere}", "tokenization.address: is not unix:/path or host:port"),
        ("tokenization: {deadline_ms: 0}", "tokenization.deadline_ms: Expected `int` >= 1"),
    ],
)
def test_a_mistake_about_models_or_tokenization_is_refused_with_its_key(more, message):
    with pytest.raises(SettingsError) as caught:
        parse(DYNAMO, more)
    assert message in str(caught.value)


def test_models_have_a_strategy_a_digest_and_may_be_adapters():
    digest = "sha256:" + "0" * 64
    settings = parse(DYNAMO, f"models: {{m: {{strategy: it, tokenizer_digest: '{digest}', lora: true}}}}")
    model = settings.models["m"]
    assert (model.strategy, model.tokenizer_digest, model.lora) == ("it", digest, True)
