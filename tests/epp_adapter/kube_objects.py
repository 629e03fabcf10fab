"""Kubernetes objects as the API server sends them, as far as the adapter reads them."""

POOLS = "/apis/inference.networking.k8s.io/v1/namespaces/ns/inferencepools"
PODS = "/api/v1/namespaces/ns/pods"
OBJECTIVES = "/apis/llm-d.ai/v1alpha2/namespaces/ns/inferenceobjectives"
OLD_OBJECTIVES = "/apis/inference.networking.x-k8s.io/v1alpha2/namespaces/ns/inferenceobjectives"
REWRITES = "/apis/llm-d.ai/v1alpha2/namespaces/ns/inferencemodelrewrites"
OLD_REWRITES = "/apis/inference.networking.x-k8s.io/v1alpha2/namespaces/ns/inferencemodelrewrites"


def pool(name="pool", *, labels=None, ports=(8000,)):
    return {
        "apiVersion": "inference.networking.k8s.io/v1",
        "kind": "InferencePool",
        "metadata": {"name": name, "namespace": "ns", "uid": f"uid-{name}"},
        "spec": {
            "selector": {"matchLabels": labels or {"app": "vllm"}},
            "targetPorts": [{"number": port} for port in ports],
            "endpointPickerRef": {"name": "epp", "port": {"number": 9002}},
        },
    }


def pod(name, ip, *, ready=True, deleting=False, labels=None, phase="Running"):
    metadata = {"name": name, "namespace": "ns", "labels": {"app": "vllm"} | (labels or {})}
    if deleting:
        metadata["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    status = {"phase": phase, "conditions": [{"type": "Ready", "status": str(ready), "lastProbeTime": None}]}
    if ip is not None:
        status |= {"podIP": ip, "podIPs": [{"ip": ip}]}
    return {"metadata": metadata, "spec": {"containers": [{"name": "main"}]}, "status": status}


def objective(name, priority=None, *, pool_name="pool"):
    spec = {"poolRef": {"group": "inference.networking.k8s.io", "kind": "InferencePool", "name": pool_name}}
    return {"metadata": {"name": name}, "spec": spec | ({} if priority is None else {"priority": priority})}


def rewrite(name, *rules, pool_name="pool", created="2026-01-01T00:00:00Z"):
    spec = {"poolRef": {"name": pool_name}, "rules": list(rules)}
    return {"metadata": {"name": name, "creationTimestamp": created}, "spec": spec}


def rule(*models, to, weight=None):
    target = {"modelRewrite": to} | ({} if weight is None else {"weight": weight})
    return {
        "matches": [{"model": {"type": "Exact", "value": model}} for model in models],
        "targets": [target],
    }
