"""The Envoy bootstrap generator: what each option means in the configuration, and that Envoy accepts it."""

import itertools
import json
from pathlib import Path

import pytest

from loadtests.stack import envoy_binary
from loadtests.stack.envoy_config import (
    AccessLog,
    BodyMode,
    DiscoveredPool,
    DnsPool,
    EnvoyOptions,
    ExtProcFilter,
    ListenerTls,
    StaticPool,
    TcpAddress,
    UnixAddress,
    access_log_fields,
    epp_filter,
    render,
    tokenext_filter,
)

ANY_PORT = TcpAddress("127.0.0.1", 0)
POOL = StaticPool((TcpAddress("127.0.0.1", 8001), TcpAddress("127.0.0.1", 8002)))
TOKENEXT = (UnixAddress("/run/tokenext-0.sock"), UnixAddress("/run/tokenext-1.sock"))
EPP = (TcpAddress("127.0.0.1", 9002),)

EXT_PROC = "type.googleapis.com/envoy.extensions.filters.http.ext_proc.v3.ExternalProcessor"


def options(*filters: ExtProcFilter, **changes) -> EnvoyOptions:
    return EnvoyOptions(**{"listen": ANY_PORT, "pool": POOL, "filters": filters, **changes})


def rendered(*filters: ExtProcFilter, **changes) -> dict:
    return json.loads(render(options(*filters, **changes)))


def manager(config: dict) -> dict:
    listener = config["staticResources"]["listeners"][0]
    return listener["filterChains"][0]["filters"][0]["typedConfig"]


def processors(config: dict) -> list[dict]:
    found = [each["typedConfig"] for each in manager(config)["httpFilters"]]
    return [each for each in found if each["@type"] == EXT_PROC]


def clusters(config: dict) -> dict[str, dict]:
    return {each["name"]: each for each in config["staticResources"]["clusters"]}


def validate(configured: EnvoyOptions, folder: Path) -> None:
    config = folder / "envoy.json"
    config.write_text(render(configured), encoding="utf-8")
    envoy_binary.validate(envoy_binary.find(), config)


def test_a_process_of_two_that_ends_or_is_dead_is_left_out_and_its_stream_goes_to_the_other():
    config = rendered(tokenext_filter(TOKENEXT), epp_filter(EPP))
    for cluster in (clusters(config)["tokenext"], clusters(config)["epp"]):
        (check,) = cluster["healthChecks"]
        assert check["grpcHealthCheck"] == {"serviceName": "readiness"}
        assert cluster["outlierDetection"]["consecutiveLocalOriginFailure"] == 1
        assert cluster["outlierDetection"]["splitExternalLocalOriginErrors"]
        assert cluster["commonLbConfig"] == {"updateMergeWindow": "0s"}
    for processor in processors(config):
        policy = processor["grpcService"]["retryPolicy"]
        assert "connect-failure" in policy["retryOn"]
        assert policy["retryHostPredicate"][0]["name"] == "envoy.retry_host_predicates.previous_hosts"
    assert "healthChecks" not in clusters(config)["pool"]


def test_envoy_gives_back_memory_that_it_does_not_use():
    manager = rendered()["memoryAllocatorManager"]
    assert int(manager["bytesToRelease"]) == 64 * 1024 * 1024
    assert manager["memoryReleaseInterval"] == "1s"


def test_filters_stand_in_the_order_given_with_names_of_their_own():
    names = [
        each["name"] for each in manager(rendered(tokenext_filter(TOKENEXT), epp_filter(EPP)))["httpFilters"]
    ]
    assert names == [
        "envoy.filters.http.ext_proc.tokenext",
        "envoy.filters.http.ext_proc.epp",
        "envoy.filters.http.router",
    ]


def test_the_tokenizing_filter_buffers_fails_open_and_never_sees_the_response():
    (tokenext,) = processors(rendered(tokenext_filter(TOKENEXT)))
    assert tokenext["failureModeAllow"] is True
    assert tokenext["messageTimeout"] == "5s"
    assert tokenext["processingMode"] == {
        "requestHeaderMode": "SEND",
        "requestBodyMode": "BUFFERED",
        "requestTrailerMode": "SKIP",
        "responseHeaderMode": "SKIP",
        "responseTrailerMode": "SKIP",
    }
    assert tokenext["metadataOptions"] == {"receivingNamespaces": {"untyped": ["tokenext"]}}


def test_the_epp_filter_sees_start_and_end_of_the_response_and_fails_closed_with_503():
    (epp,) = processors(rendered(epp_filter(EPP)))
    assert "failureModeAllow" not in epp
    assert epp["statusOnError"] == {"code": "ServiceUnavailable"}
    assert epp["mutationRules"] == {"allowAllRouting": True}
    assert epp["processingMode"] == {
        "requestHeaderMode": "SEND",
        "requestTrailerMode": "SKIP",
        "responseHeaderMode": "SEND",
        "responseTrailerMode": "SEND",
    }
    assert epp["metadataOptions"]["receivingNamespaces"]["untyped"] == ["envoy.lb", "tokenext"]
    assert epp["metadataOptions"]["forwardingNamespaces"]["untyped"][:2] == [
        "tokenext",
        "envoy.lb.subset_hint",
    ]


def test_a_namespace_of_ones_own_reaches_both_filters_and_the_access_log():
    config = rendered(
        tokenext_filter(TOKENEXT, namespace="mine"),
        epp_filter(EPP, record_namespace="mine"),
        access_log=AccessLog("/dev/stdout", access_log_fields("mine")),
    )
    tokenext, epp = processors(config)
    assert tokenext["metadataOptions"]["receivingNamespaces"]["untyped"] == ["mine"]
    assert epp["metadataOptions"]["forwardingNamespaces"]["untyped"][0] == "mine"
    line = manager(config)["accessLog"][0]["typedConfig"]["logFormat"]["jsonFormat"]
    assert line["token_count"] == "%DYNAMIC_METADATA(mine:record:tokenCount)%"


def test_full_duplex_sends_trailers_keeps_content_length_and_does_not_fail_open():
    (tokenext,) = processors(rendered(tokenext_filter(TOKENEXT, request_body=BodyMode.FULL_DUPLEX_STREAMED)))
    assert tokenext["processingMode"]["requestTrailerMode"] == "SEND"
    assert tokenext["allowContentLengthHeader"] is True
    assert "failureModeAllow" not in tokenext


def test_failing_open_with_full_duplex_is_refused_because_envoy_cannot_do_it():
    with pytest.raises(ValueError, match="tokenext: fail_open does not work with FULL_DUPLEX_STREAMED"):
        tokenext_filter(TOKENEXT, request_body=BodyMode.FULL_DUPLEX_STREAMED, fail_open=True)


def test_two_filters_of_one_name_are_refused():
    with pytest.raises(ValueError, match="unique"):
        options(epp_filter(EPP), epp_filter(EPP))


def test_a_filter_without_endpoints_is_refused():
    with pytest.raises(ValueError, match="tokenext: at least one endpoint"):
        render(options(tokenext_filter(())))


def test_each_process_of_a_service_is_an_endpoint_and_the_least_loaded_one_is_asked():
    cluster = clusters(rendered(tokenext_filter(TOKENEXT)))["tokenext"]
    endpoints = cluster["loadAssignment"]["endpoints"][0]["lbEndpoints"]
    assert [each["endpoint"]["address"]["pipe"]["path"] for each in endpoints] == [
        "/run/tokenext-0.sock",
        "/run/tokenext-1.sock",
    ]
    assert cluster["lbPolicy"] == "LEAST_REQUEST"


def test_services_known_by_name_are_resolved_by_dns():
    service = TcpAddress("epp-adapter.default.svc", 9002)
    assert clusters(rendered(epp_filter((service,))))["epp"]["type"] == "STRICT_DNS"
    assert clusters(rendered(epp_filter(EPP)))["epp"].get("type", "STATIC") == "STATIC"


def test_the_pool_follows_metadata_before_the_header_and_has_no_time_limit():
    config = rendered(epp_filter(EPP))
    policies = clusters(config)["pool"]["loadBalancingPolicy"]["policies"]
    override = policies[0]["typedExtensionConfig"]["typedConfig"]
    metadata, header = override["overrideHostSources"]
    assert metadata == {"metadata": {"key": "envoy.lb", "path": [{"key": "x-gateway-destination-endpoint"}]}}
    assert header == {"header": "x-gateway-destination-endpoint"}
    (route,) = manager(config)["routeConfig"]["virtualHosts"][0]["routes"]
    assert route["route"]["timeout"] == "0s"


def test_the_buffer_limit_stands_on_the_listener():
    config = rendered(buffer_limit_bytes=123_456)
    assert config["staticResources"]["listeners"][0]["perConnectionBufferLimitBytes"] == 123_456


def test_a_pool_by_name_is_resolved_and_chooses_among_what_it_finds():
    names = (TcpAddress("pool.ns.svc", 8000), TcpAddress("pool.ns.svc", 8001))
    pool, static = (clusters(rendered(epp_filter(EPP), pool=each))["pool"] for each in (DnsPool(names), POOL))
    assert pool["type"] == "STRICT_DNS"
    assert pool["loadBalancingPolicy"] == static["loadBalancingPolicy"]
    found = pool["loadAssignment"]["endpoints"][0]["lbEndpoints"]
    assert [each["endpoint"]["address"]["socketAddress"]["portValue"] for each in found] == [8000, 8001]


def test_probes_see_readiness_and_metrics_and_nothing_else_of_the_admin_interface():
    config = rendered(admin=ANY_PORT, probes=TcpAddress("10.0.0.1", 9901))
    probes = config["staticResources"]["listeners"][1]
    assert probes["address"]["socketAddress"] == {"address": "10.0.0.1", "portValue": 9901}
    (virtual_host,) = probes["filterChains"][0]["filters"][0]["typedConfig"]["routeConfig"]["virtualHosts"]
    assert [each["match"] for each in virtual_host["routes"]] == [
        {"path": "/ready"},
        {"path": "/stats/prometheus"},
    ]
    with pytest.raises(ValueError, match="probes are answered by the admin interface"):
        options(probes=ANY_PORT)


def test_clients_tls_reads_its_certificate_from_a_file_of_secrets():
    config = rendered(tls=ListenerTls("/etc/envoy/secrets.json"))
    socket = config["staticResources"]["listeners"][0]["filterChains"][0]["transportSocket"]
    context = socket["typedConfig"]["commonTlsContext"]
    (secret,) = context["tlsCertificateSdsSecretConfigs"]
    assert secret["name"] == "server"
    assert secret["sdsConfig"]["pathConfigSource"] == {"path": "/etc/envoy/secrets.json"}
    assert context["alpnProtocols"] == ["h2", "http/1.1"]
    assert config["node"]["id"], "Envoy reads no secrets without"
    assert "node" not in rendered()


def test_ipv6_addresses_are_written_with_brackets():
    assert str(TcpAddress("::1", 80)) == "[::1]:80"
    assert str(TcpAddress("10.0.0.1", 80)) == "10.0.0.1:80"


@pytest.mark.integration
@pytest.mark.parametrize("tokenext_body", BodyMode)
@pytest.mark.parametrize("epp_body", BodyMode)
def test_envoy_accepts_every_combination_of_body_modes(tmp_path, tokenext_body, epp_body):
    for response_body in BodyMode:
        validate(
            options(
                tokenext_filter(TOKENEXT, request_body=tokenext_body),
                epp_filter(EPP, request_body=epp_body, response_body=response_body),
                admin=ANY_PORT,
                access_log=AccessLog(str(tmp_path / "access.log")),
            ),
            tmp_path,
        )


@pytest.mark.integration
@pytest.mark.parametrize("pool", [POOL, DiscoveredPool()], ids=["static", "discovered"])
@pytest.mark.parametrize("fail_open", [True, False])
def test_envoy_accepts_every_pool_and_failure_mode_with_and_without_filters(tmp_path, pool, fail_open):
    chain = (tokenext_filter(TOKENEXT, fail_open=fail_open), epp_filter(EPP, fail_open=fail_open))
    by_name = (epp_filter((TcpAddress("epp.default.svc", 9002),)),)
    for filters, retries in itertools.product((chain, by_name, ()), (0, 2)):
        validate(options(*filters, pool=pool, retries=retries), tmp_path)


@pytest.mark.integration
def test_what_envoy_refuses_is_an_error_that_names_the_file_and_the_reason(tmp_path):
    config = tmp_path / "envoy.json"
    config.write_text('{"staticResources": {"clusters": [{"nam": "x"}]}}')
    with pytest.raises(envoy_binary.EnvoyConfigError, match=r"envoy\.json.*nam"):
        envoy_binary.validate(envoy_binary.find(), config)
