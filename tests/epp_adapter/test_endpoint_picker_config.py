"""EndpointPickerConfig: files as operators have them, and what is refused."""

from pathlib import Path
from random import Random

import pytest

from epp_adapter.endpoint_picker_config import DEFAULT_CONFIG, parse_picker_config
from epp_adapter.endpoints import Endpoint, FixedEndpoints
from epp_adapter.internal_wiring import build_internal, event_follower
from epp_adapter.picker_plugins import PLUGIN_TYPES, Role, seconds
from epp_adapter.routing.filters import ROLE_LABEL
from epp_adapter.routing.load import EndpointLoad, FixedLoads
from epp_adapter.routing.strategy import RoutingRequest, StrategyError, StrategyFault
from epp_adapter.settings import DynamoEventsSettings, InternalSettings, VllmEventsSettings
from extproc.settings_file import SettingsError
from extproc.token_metadata import TokenIds

HEAD = "apiVersion: llm-d.ai/v1alpha1\nkind: EndpointPickerConfig\n"
LEGACY = HEAD.replace("llm-d.ai/v1alpha1", "inference.networking.x-k8s.io/v1alpha1")

# Shaped like the samples that llm-d ships for a pool of vLLM servers with KV events.
PRECISE = """\
plugins:
- {type: token-producer, parameters: {modelName: some/model, vllm: {url: "http://localhost:8000"}}}
- type: metrics-data-source
- type: core-metrics-extractor
- type: single-profile-handler
- type: decode-filter
- type: precise-prefix-cache-producer
  parameters:
    tokenProcessorConfig: {blockSize: 64, hashSeed: "42"}
    kvEventsConfig: {zmqEndpoint: "tcp://127.0.0.1:5557", topicFilter: "kv@"}
    indexerConfig: {kvBlockIndexConfig: {enableMetrics: true}}
- {type: prefix-cache-scorer, parameters: {prefixMatchInfoProducerName: precise-prefix-cache-producer}}
- type: kv-cache-utilization-scorer
- type: queue-scorer
- {type: max-score-picker, parameters: {maxNumOfEndpoints: 2}}
dataLayer:
  sources:
  - {pluginRef: metrics-data-source, extractors: [{pluginRef: core-metrics-extractor}]}
schedulingProfiles:
- name: default
  plugins:
  - pluginRef: decode-filter
  - {pluginRef: prefix-cache-scorer, weight: 2.0}
  - {pluginRef: kv-cache-utilization-scorer, weight: 1.0}
  - pluginRef: queue-scorer
  - pluginRef: max-score-picker
"""


def parse(text: str, head: str = HEAD):
    return parse_picker_config((head + text).encode(), source="picker.yaml")


def build(tmp_path: Path, text: str | None = None, *, loads=None, **settings):
    if text is not None:
        (tmp_path / "picker.yaml").write_text(HEAD + text)
        settings["config"] = "picker.yaml"
    return build_internal(
        "internal",
        InternalSettings(**settings),
        tmp_path,
        clock=lambda: 100.0,
        random=Random(1),
        loads=loads,
    )


def scorers(config) -> list[tuple[str, float]]:
    return [(use.plugin.type, use.weight) for use in config.scorers]


@pytest.mark.parametrize("head", [HEAD, LEGACY])
def test_both_api_versions_are_read(head):
    config = parse("plugins: [{type: queue-scorer}]\n", head)
    assert scorers(config) == [("queue-scorer", 1.0)]


def test_the_default_is_the_references():
    config = parse_picker_config(DEFAULT_CONFIG, source="default")
    assert scorers(config) == [
        ("queue-scorer", 2.0),
        ("kv-cache-utilization-scorer", 2.0),
        ("prefix-cache-scorer", 3.0),
    ]
    assert config.picker.type == "max-score-picker"
    assert (config.limits.queue_depth, config.limits.kv_utilization) == (5, 0.8)
    assert config.limits.staleness_seconds == pytest.approx(0.2)


def test_a_precise_prefix_file_is_read_whole():
    config = parse(PRECISE)
    assert scorers(config) == [
        ("prefix-cache-scorer", 2.0),
        ("kv-cache-utilization-scorer", 1.0),
        ("queue-scorer", 1.0),
    ]
    assert [plugin.type for plugin in config.filters] == ["decode-filter"]
    assert (config.prefix.exact, config.prefix.block_size) == (True, 64)
    assert config.prefix.events.zmq_endpoint == "tcp://127.0.0.1:5557"


def test_names_and_types_are_told_apart():
    config = parse(
        "plugins: [{name: short, type: queue-scorer}, {name: first, type: random-picker}]\n"
        "schedulingProfiles: [{name: p, plugins: [{pluginRef: short, weight: 3}, {pluginRef: first}]}]\n"
    )
    assert (config.profile, scorers(config), config.picker.name) == ("p", [("queue-scorer", 3.0)], "first")


def test_without_a_profile_all_plugins_make_one():
    config = parse("plugins: [{type: queue-scorer}, {type: decode-filter}, {type: openai-parser}]\n")
    assert (config.profile, scorers(config)) == ("default", [("queue-scorer", 1.0)])
    assert [plugin.type for plugin in config.filters] == ["decode-filter"]


def test_every_accepted_type_may_stand_in_a_file_with_any_parameters():
    accepted = [name for name, known in PLUGIN_TYPES.items() if known.role is Role.ACCEPTED]
    assert {"token-producer", "metrics-data-source", "core-metrics-extractor", "openai-parser"} <= set(
        accepted
    )
    listed = "".join(f"- {{type: {name}, parameters: {{any: {{thing: 1}}}}}}\n" for name in accepted)
    assert parse("plugins:\n" + listed).scorers == ()


def test_parameters_of_older_releases_stand_with_the_scorer():
    config = parse(
        "plugins:\n- type: prefix-cache-scorer\n  parameters: {blockSizeTokens: 32,"
        " maxPrefixBlocksToMatch: 256, lruCapacityPerServer: 100, autoTune: false}\n"
    )
    prefix = config.prefix
    assert (prefix.block_size, prefix.max_tokens, prefix.blocks_per_endpoint, prefix.auto_tune) == (
        32,
        8192,
        100,
        False,
    )


@pytest.mark.parametrize(
    ("text", "limits"),
    [
        (
            (
                "plugins: [{type: utilization-detector, parameters: {queueDepthThreshold: 9,"
                " metricsStalenessThreshold: 1m2s500ms, headroom: 0.5}}]\n"
            ),
            (9, 0.8, 62.5, 0.5),
        ),
        (
            (
                "plugins: [{name: mine, type: utilization-detector,"
                " parameters: {kvCacheUtilThreshold: 0.5}}]\n"
                "flowControl: {saturationDetector: {pluginRef: mine}, maxBytes: 1Gi}\n"
            ),
            (5, 0.5, 0.2, 0.0),
        ),
        ("saturationDetector: {queueDepthThreshold: 7}\n", (7, 0.8, 0.2, 0.0)),
    ],
)
def test_the_saturation_detector_is_configured_in_each_releases_way(text, limits):
    found = parse(text).limits
    assert (found.queue_depth, found.kv_utilization, found.staleness_seconds, found.headroom) == limits


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "plugins: [{name: fast, type: latency-scorer}]",
            "plugin 'fast' has type 'latency-scorer', which is none of: active-request-scorer, ",
        ),
        (
            "plugins: [{type: queue-scorer, parameters: {depth: 3}}]",
            (
                "plugins[0].parameters: plugin 'queue-scorer' of type 'queue-scorer': Object contains unknown"
                " field `depth`"
            ),
        ),
        (
            "plugins: [{type: max-score-picker, parameters: {maxNumOfEndpoints: 0}}]",
            "plugin 'max-score-picker' of type 'max-score-picker': Expected `int` >= 1",
        ),
        ("plugins: [{type: queue-scorer}, {type: queue-scorer}]", "a second plugin is named 'queue-scorer'"),
        ("plugin: []", "Object contains unknown field `plugin`"),
        (
            "plugins: [{type: queue-scorer}]\nschedulingProfiles: [{name: p, plugins: [{pluginRef: kv}]}]",
            "schedulingProfiles.p.plugins[0].pluginRef: 'kv' is none of the plugins (queue-scorer)",
        ),
        (
            (
                "plugins: [{type: queue-scorer}]\n"
                "schedulingProfiles: [{name: p, plugins: [{pluginRef: queue-scorer, weight: -1}]}]"
            ),
            "plugins[0].weight: is below 0",
        ),
        (
            "plugins: [{type: random-picker}, {type: max-score-picker}]",
            "schedulingProfiles.default: has more than one picker (random-picker, max-score-picker)",
        ),
        (
            (
                "plugins: [{type: random-picker}]\nschedulingProfiles: [{name: prefill, plugins: []},"
                " {name: decode, plugins: []}]"
            ),
            "single-profile-handler runs one profile, and here are several (prefill, decode)",
        ),
        (
            "plugins: [{name: a, type: single-profile-handler}, {name: b, type: single-profile-handler}]",
            "plugins: has more than one profile handler (a, b)",
        ),
        ("featureGates: [flowControl]", "featureGates[0]: 'flowControl' is not built here; leave it out"),
        (
            "plugins: [{type: utilization-detector, parameters: {metricsStalenessThreshold: soon}}]",
            "plugin 'utilization-detector': metricsStalenessThreshold: is no duration",
        ),
        (
            "plugins: [{type: queue-scorer}]\nsaturationDetector: {pluginRef: queue-scorer}",
            "saturationDetector.pluginRef: 'queue-scorer' is no utilization-detector",
        ),
        (
            "plugins: [{type: prefix-cache-scorer, parameters: {prefixMatchInfoProducerName: nobody}}]",
            "plugin 'prefix-cache-scorer': prefixMatchInfoProducerName: 'nobody' is none of the plugins",
        ),
        (
            (
                "plugins: [{type: queue-scorer}, {type: prefix-cache-scorer,"
                " parameters: {prefixMatchInfoProducerName: queue-scorer}}]"
            ),
            "'queue-scorer' is no prefix producer",
        ),
        (
            (
                "plugins: [{type: by-label-selector,"
                " parameters: {matchExpressions: [{key: a, operator: Near}]}}]"
            ),
            "Invalid enum value 'Near'",
        ),
    ],
)
def test_a_mistake_is_refused_by_name(text, message):
    with pytest.raises(SettingsError) as caught:
        parse(text)
    assert str(caught.value).startswith("picker.yaml: ")
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("head", "key"),
    [(HEAD.replace("v1alpha1", "v9"), "apiVersion"), (HEAD.replace("EndpointPickerConfig", "Pod"), "kind")],
)
def test_another_document_is_refused(head, key):
    with pytest.raises(SettingsError, match=key):
        parse("plugins: []", head)


@pytest.mark.parametrize(
    ("text", "value"), [("200ms", 0.2), ("5s", 5.0), ("1h1m1s", 3661.0), ("1.5s", 1.5), ("10us", 1e-5)]
)
def test_a_duration_is_read_as_go_writes_it(text, value):
    assert seconds(text) == pytest.approx(value)


@pytest.mark.parametrize("text", ["", "5", "s", "5 s", "-5s", "5s!"])
def test_what_is_no_duration_is_refused(text):
    with pytest.raises(ValueError, match="duration"):
        seconds(text)


class TestBuilding:
    def request(self, **fields) -> RoutingRequest:
        return RoutingRequest("r", "model", TokenIds.pack(list(range(64))), **fields)

    async def test_without_a_file_the_default_schedules(self, tmp_path):
        parts = build(tmp_path)
        pool = (Endpoint("10.0.0.0:8000"), Endpoint("10.0.0.1:8000"))
        first = await parts.strategy.pick(self.request(), pool)
        assert len(first.destination.endpoints) == 2
        assert (parts.block_size, parts.prefix_blocks(), parts.index) == (16, 4, None)

    async def test_filters_scorers_and_pickers_of_a_file_do_their_work(self, tmp_path):
        parts = build(
            tmp_path,
            """\
plugins:
- type: by-label-selector
  parameters: {matchLabels: {zone: a}, matchExpressions: [{key: gpu, operator: Exists}]}
- {type: by-label, parameters: {label: tier, validValues: [gold], allowsNoLabel: true}}
- type: decode-filter
- type: utilization-filter
- {type: session-affinity-scorer, parameters: {algorithm: session_id_header, headerName: X-Session}}
- {name: prefix, type: prefix-cache-scorer}
- type: active-request-scorer
- type: lora-affinity-scorer
- {type: weighted-random-picker, parameters: {maxNumOfEndpoints: 1}}
""",
            loads=FixedLoads({"10.0.0.2:8000": EndpointLoad(0, 0, 0.0, 100.0)}),
        )
        good = {"zone": "a", "gpu": "1"}
        pool = (
            Endpoint("10.0.0.0:8000", labels={"zone": "b", "gpu": "1"}),
            Endpoint("10.0.0.1:8000", labels=good | {ROLE_LABEL: "prefill"}),
            Endpoint("10.0.0.2:8000", labels=good),
            Endpoint("10.0.0.3:8000", labels=good | {"tier": "lead"}),
        )
        for _ in range(5):
            pick = await parts.strategy.pick(self.request(headers={"x-session": "s"}), pool)
            assert pick.destination.rendered() == "10.0.0.2:8000"

    async def test_a_negative_priority_is_shed_by_the_files_limits_where_metrics_are_scraped(self, tmp_path):
        text = (
            "plugins: [{type: queue-scorer},"
            " {type: utilization-detector, parameters: {queueDepthThreshold: 2}}]\n"
        )
        pool = (Endpoint("10.0.0.0:8000"),)
        busy = FixedLoads({"10.0.0.0:8000": EndpointLoad(2, 0, 0.0, 100.0)})
        with pytest.raises(StrategyError) as caught:
            await build(tmp_path, text, loads=busy).strategy.pick(self.request(priority=-1), pool)
        assert caught.value.fault is StrategyFault.SHED
        unscraped = build(tmp_path, text.replace("queue-scorer", "random-picker"))
        assert await unscraped.strategy.pick(self.request(priority=-1), pool)

    def test_kv_events_make_prefixes_exact(self, tmp_path):
        parts = build(tmp_path, kv_events=DynamoEventsSettings(endpoint="a.b.c"), block_size=32, max_blocks=7)
        assert (parts.index.max_blocks, parts.block_size) == (7, 32)
        assert parts.events == DynamoEventsSettings(endpoint="a.b.c")

    def test_a_file_may_ask_for_guesses_although_there_are_events(self, tmp_path):
        text = (
            "plugins: [{type: approx-prefix-cache-producer}, {type: prefix-cache-scorer,"
            " parameters: {prefixMatchInfoProducerName: approx-prefix-cache-producer}}]\n"
        )
        parts = build(tmp_path, text, kv_events=DynamoEventsSettings(endpoint="a.b.c"))
        assert (parts.index, parts.events) == (None, None)

    def test_a_file_that_says_where_events_come_from_is_enough(self, tmp_path):
        parts = build(tmp_path, PRECISE)
        assert parts.events == VllmEventsSettings(bind="tcp://127.0.0.1:5557", topic="kv@")
        found = PRECISE.replace(
            'zmqEndpoint: "tcp://127.0.0.1:5557", topicFilter: "kv@"',
            "discoverPods: true, podDiscoveryConfig: {socketPort: 6000}",
        )
        assert build(tmp_path, found).events == VllmEventsSettings(port=6000)

    def test_the_legacy_precise_scorer_is_exact_too(self, tmp_path):
        text = (
            "plugins: [{type: precise-prefix-cache-scorer, parameters: {tokenProcessorConfig: {blockSize: 8},"
            " kvEventsConfig: {zmqEndpoint: 'tcp://127.0.0.1:5557'}}}]\n"
        )
        parts = build(tmp_path, text)
        assert (parts.block_size, parts.index is not None) == (8, True)

    @pytest.mark.parametrize(
        ("text", "settings", "message"),
        [
            (
                (
                    "plugins: [{type: prefix-cache-scorer,"
                    " parameters: {prefixMatchInfoProducerName: precise-prefix-cache-producer}}]\n"
                ),
                {},
                "asks for exact prefixes, so `kv_events` must be set",
            ),
            (PRECISE, {"block_size": 16}, "block size 64 is not the block_size of the settings (16)"),
            (
                PRECISE.replace('zmqEndpoint: "tcp://127.0.0.1:5557", ', ""),
                {},
                "kvEventsConfig: needs zmqEndpoint, or discoverPods: true",
            ),
        ],
    )
    def test_what_cannot_be_put_together_is_refused(self, tmp_path, text, settings, message):
        with pytest.raises(SettingsError) as caught:
            build(tmp_path, text, **settings)
        assert str(tmp_path / "picker.yaml") in str(caught.value)
        assert message in str(caught.value)

    def test_a_missing_file_is_named(self, tmp_path):
        with pytest.raises(SettingsError, match=r"nowhere\.yaml: cannot be read"):
            build(tmp_path, config="nowhere.yaml")

    def test_only_a_strategy_with_events_has_something_to_follow(self, tmp_path):
        def follower(parts):
            return event_follower(
                parts, FixedEndpoints(), lambda outcome, count: None, nats_server="nats://x", source="s"
            )

        assert follower(build(tmp_path)) is None
        assert follower(build(tmp_path, kv_events=DynamoEventsSettings(endpoint="a.b.c"))) is not None
        assert follower(build(tmp_path, kv_events=VllmEventsSettings())) is not None
