"""The combinations of values that must render: providers x placement x workers x TLS x replicas, and specials
that turn on what is off otherwise. A combination's name says what is in it.
"""

import itertools
from collections.abc import Iterator, Mapping
from typing import Any

Values = dict[str, Any]

PROVIDERS: Mapping[str, Values] = {
    "standalone": {},
    "istio": {"provider": "istio"},
    "envoygateway": {"provider": "envoygateway"},
    "aigateway": {"provider": "envoygateway", "envoyGateway": {"endpointPicker": "aiGateway"}},
    "kgateway": {"provider": "kgateway"},
}
PLACEMENTS: Mapping[str, Values] = {
    name: {"tokenext": {"placement": name}} for name in ("filter", "service", "sidecar")
}
WORKERS: Mapping[str, Values] = {
    "mocker": {"workers": {"kind": "mocker"}},
    "dynamo": {"workers": {"kind": "dynamo", "gpus": 1, "image": {"repository": "example/vllm-runtime"}}},
    "vllm": {
        "workers": {"kind": "vllm", "gpus": 2},
        "models": [{"name": "qwen3", "source": "/models/qwen3", "handoff": "vllm"}],
        "modelStore": {"existingClaim": "models"},
    },
    "graph": {"workers": {"kind": "graph", "gpus": 1}},
    "none": {
        "workers": {"kind": "none"},
        "pool": {"selector": {"app": "my-vllm"}},
        "models": [{"name": "qwen3", "source": "org/qwen3", "handoff": "vllm"}],
    },
}
TLS: Mapping[str, Values] = {"plain": {}, "tls": {"tls": {"enabled": True, "secretName": "certificate"}}}
REPLICAS: Mapping[str, Values] = {
    "one": {"tokenext": {"replicas": 1}, "epp": {"replicas": 1}, "envoy": {"replicas": 1}},
    "many": {"tokenext": {"replicas": 3}, "epp": {"replicas": 3}, "envoy": {"replicas": 3}},
}
ROUTED: Values = {"gateway": {"create": True}, "httpRoute": {"create": True}}
HANDLED: Values = {"epp": {"health": {"failures": 2}, "scrape": {"engine": "vllm", "interval_ms": 500}}}

# tokenext alone, for a picker that is not the chart's.
TIER: Values = {"epp": {"enabled": False}, "tokenext": {"http": {"enabled": True}}}
MONITORED: Values = {
    "networkPolicy": {"enabled": True, "metricsNamespace": "monitoring"},
    "serviceMonitor": {"enabled": True, "labels": {"release": "prometheus"}},
    "alerts": {"enabled": True, "labels": {"release": "prometheus"}},
    "dashboard": {"enabled": True},
}

MORE: Mapping[str, Values] = {
    "everything-optional": {
        "tokenext": {
            "processes": 4,
            "autoscaling": {"enabled": True},
            "limits": {"workers": 2, "deadline_ms": 1500},
            "prefixCache": {"budget_bytes": 1 << 28},
            "conversations": {"budget_bytes": 1 << 25},
            "breaker": {"failures": 3},
            "log": {"level": "warning"},
            "env": [{"name": "HF_HUB_OFFLINE", "value": "1"}],
            "podLabels": {"team": "a"},
            "nodeSelector": {"pool": "cpu"},
            "tolerations": [{"key": "cpu", "operator": "Exists"}],
            "priorityClassName": "high",
        },
        **MONITORED,
        "tracing": {"endpoint": "http://otel-collector.monitoring:4317", "sample_ratio": 0.05},
        "rbac": {"leases": True},
        "hub": {"tokenSecret": "hub"},
        "commonLabels": {"owner": "ml"},
        "image": {"pullSecrets": ["registry"], "digest": "sha256:" + "0" * 64},
        "objectives": [{"name": "chat", "priority": 10}, {"name": "batch", "priority": -1}],
        "epp": {"replicaSync": True, "log": {"exchangeRatio": 0.01}, **HANDLED["epp"]},
    },
    "tokenext-tls": {
        "tokenext": {
            "processes": 4,
            "tls": {"secretName": "tokenext", "requireClientCertificate": True},
        },
        "networkPolicy": {"enabled": True},
    },
    "admin-token": {"adminToken": {"secretName": "admin"}, "serviceMonitor": {"enabled": True}},
    "sidecar-admin-token": {
        "adminToken": {"secretName": "admin", "key": "prometheus.txt"},
        "serviceMonitor": {"enabled": True},
        "tokenext": {"placement": "sidecar"},
    },
    "render-api": {"tokenext": {"processes": 2, "http": {"enabled": True}}},
    "render-tier": TIER,
    "render-tier-monitored": {
        **TIER,
        **MONITORED,
        "networkPolicy": {"enabled": True, "gatewayNamespace": "llm-d"},
        "adminToken": {"secretName": "admin"},
        "models": [{"name": "qwen3", "source": "/models/qwen3", "profile": "vllm", "max_length": 4096}],
        "modelStore": {"existingClaim": "models", "bundle": False},
        "tokenext": {
            "http": {"enabled": True, "port": 8000, "maxRequests": 64},
            "tls": {"secretName": "tokenext", "requireClientCertificate": True},
            "autoscaling": {"enabled": True, "maxReplicas": 20},
            "env": [{"name": "HF_HUB_OFFLINE", "value": "1"}],
        },
    },
    # What a chain had and a tier has no use for is passed over, where it is no more than settings.
    "render-tier-that-was-a-chain": {
        **TIER,
        **MONITORED,
        "epp": {
            "enabled": False,
            "replicaSync": True,
            "requireModel": True,
            "strategies": {"i": {"kind": "internal"}},
        },
        "tokenext": {"placement": "service", "http": {"enabled": True}},
        "workers": {"kind": "none"},
        "envoy": {"pool": "dns"},
        "pool": {"create": False},
        "dynamo": {"discovery": "etcd", "etcd": {"enabled": True}},
        "serviceAccount": {"create": False, "name": "ml"},
    },
    "service-tls": {"tokenext": {"placement": "service", "tls": {"secretName": "tokenext", "port": 9443}}},
    "rewrites": {
        "modelRewrites": [
            {
                "name": "canary",
                "models": ["qwen3-0.6b"],
                "targets": [{"model": "a", "weight": 9}, {"model": "b", "weight": 1}],
            },
            {"name": "all", "targets": [{"model": "a"}]},
        ]
    },
    "require-model": {"epp": {"requireModel": True}},
    "body-carrier": {"carrier": "body"},
    "full-duplex": {"tokenext": {"requestBody": "FULL_DUPLEX_STREAMED", "failOpen": False}},
    "fail-closed": {"tokenext": {"failOpen": False}},
    "dns-pool": {"envoy": {"pool": "dns"}, "epp": {"failureMode": "FailOpen", "destinationFallbacks": 2}},
    "no-retries": {"envoy": {"retries": 0, "bufferLimitBytes": 1 << 20, "streamIdleSeconds": 60}},
    "own-namespace": {"tokenext": {"metadataNamespace": "com.example.ids", "processes": 2}},
    "own-picker": {
        "epp": {
            "strategies": {"internal": {"kind": "internal", "config": "picker.yaml", "block_size": 16}},
            "pickerConfig": {
                "apiVersion": "llm-d.ai/v1alpha1",
                "kind": "EndpointPickerConfig",
                "plugins": [{"type": "queue-scorer"}, {"type": "max-score-picker"}],
                "schedulingProfiles": [
                    {
                        "name": "default",
                        "plugins": [
                            {"pluginRef": "queue-scorer", "weight": 1},
                            {"pluginRef": "max-score-picker"},
                        ],
                    }
                ],
            },
        }
    },
    "standalone-behind-a-gateway": {
        "httpRoute": {"create": True},
        "gateway": {"create": True, "className": "gke"},
    },
    "no-bundles": {"modelStore": {"bundle": False}},
    "own-planes": {"dynamo": {"nats": {"url": "nats://nats.elsewhere:4222"}}},
    "zmq": {"dynamo": {"eventPlane": "zmq"}},
    "etcd": {
        "dynamo": {"discovery": "etcd", "etcd": {"enabled": True}},
        "epp": {"strategies": {"internal": {"kind": "internal"}, "round-robin": {"kind": "round-robin"}}},
    },
    "kgateway-own-certificate": {"provider": "kgateway", **ROUTED, "epp": {"tls": {"secretName": "picker"}}},
    "own-pool": {"pool": {"create": False, "name": "theirs"}},
    "own-selector": {
        "pool": {"selector": {"app.kubernetes.io/component": "worker", "tier": "gpu"}},
        "commonLabels": {"team": "ml", "app.kubernetes.io/part-of": "platform"},
        "tokenext": {"podLabels": {"team": "tokens"}},
    },
    "own-accounts": {"serviceAccount": {"create": False, "name": "ml"}, "rbac": {"create": False}},
    "two-models": {
        "models": [
            {"name": "a/b:c", "source": "org/a", "handoff": "dynamo", "aliases": ["a"], "loras": ["a-sql"]},
            {
                "name": "A/b:C",
                "source": "org/b",
                "handoff": "dynamo",
                "chat_template_kwargs": {"enable_thinking": False},
            },
        ]
    },
    "istio-anchored": {
        "provider": "istio",
        "istio": {"operation": "INSERT_BEFORE", "anchorFilter": "envoy.filters.http.ext_proc"},
        "gateway": {"namespace": "istio-ingress"},
        "networkPolicy": {"enabled": True, "gatewayNamespace": "istio-ingress"},
    },
    "istio-own-namespace": {"provider": "istio", "tokenext": {"metadataNamespace": "tokenext"}},
    "istio-full-duplex": {
        "provider": "istio",
        "tokenext": {"requestBody": "FULL_DUPLEX_STREAMED", "failOpen": False},
    },
    "istio-fail-open": {"provider": "istio", "epp": {"failureMode": "FailOpen"}},
    "envoygateway-their-route": {"provider": "envoygateway", "httpRoute": {"name": "theirs"}},
    "envoygateway-full-duplex": {
        "provider": "envoygateway",
        **ROUTED,
        "tokenext": {"requestBody": "FULL_DUPLEX_STREAMED", "failOpen": False},
    },
    "gateway-elsewhere": {
        "provider": "envoygateway",
        **ROUTED,
        "gateway": {"create": True, "namespace": "edge"},
    },
}


def combinations() -> Iterator[tuple[str, Values]]:
    """Every name once, with its values."""
    for provider, placement, workers, tls, replicas in itertools.product(
        PROVIDERS, PLACEMENTS, WORKERS, TLS, REPLICAS
    ):
        routed = {} if provider == "standalone" else ROUTED
        parts = (
            PROVIDERS[provider],
            PLACEMENTS[placement],
            WORKERS[workers],
            TLS[tls],
            REPLICAS[replicas],
            routed,
        )
        yield f"{provider}-{placement}-{workers}-{tls}-{replicas}", merged(*parts)
    yield from ((name, merged(values)) for name, values in MORE.items())


def sample() -> Iterator[tuple[str, Values]]:
    """What the unit tests ask: every special, and an eighth of the rest, so that each value is in some."""
    for index, (name, values) in enumerate(combinations()):
        special = name in MORE
        if special or index % 8 == (index // 8) % 8:
            yield name, values


def merged(*parts: Mapping[str, Any]) -> Values:
    """Later parts win; mappings are merged."""
    result: Values = {}
    for part in parts:
        for key, value in part.items():
            old = result.get(key)
            result[key] = merged(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return result
