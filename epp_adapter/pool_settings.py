"""Settings of the pool: where endpoints come from, how they are watched, what it says of requests."""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from epp_adapter.endpoints import AddressError, canonical_address
from epp_adapter.passive_health import HealthOptions
from epp_adapter.pool_rules import ModelRewrite, PoolRules, RewriteRule, RewriteTarget
from epp_adapter.probe import ProbeOptions
from extproc.settings_file import SettingsError

__all__ = [
    "EndpointsSettings",
    "HealthSettings",
    "PoolSettings",
    "RewriteSettings",
    "ScrapeSettings",
    "check_endpoints",
    "fixed_rules",
]

Seconds = Annotated[float, Meta(gt=0)]
Count = Annotated[int, Meta(gt=0)]
Path = Annotated[str, Meta(pattern="^/")]
Engine = Literal["vllm", "sglang", "trtllm-serve"]


class _Strict(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    pass


class PoolSettings(_Strict, frozen=True):
    """An InferencePool (v1) of the cluster we run in, or of the one that `kubeconfig` names.

    `namespace` None: our own. `dynamo_workers`: pods are Dynamo workers with a front end beside them, whose
    ids follow from the pods' names (discovery kubernetes). `rules`: InferenceObjectives and
    InferenceModelRewrites of the pool are followed too. `api_server` takes the place of a kubeconfig's,
    without credentials.
    """

    name: str
    namespace: str | None = None
    dynamo_workers: bool = False
    rules: bool = True
    kubeconfig: str | None = None
    api_server: str | None = None
    resync_seconds: Seconds = 300.0


class EndpointsSettings(_Strict, frozen=True):
    """Either a `file`, relative to the settings file and read every `poll_seconds`, or a `pool`."""

    file: str | None = None
    poll_seconds: Seconds = 0.5
    pool: PoolSettings | None = None


class HealthSettings(_Strict, frozen=True):
    """`failures` in a row (502, 503), or `timeouts` in a row (504), set an endpoint aside for `base_seconds`,
    doubled up to `max_seconds`; then it is asked for `probe_path` before requests go there again.
    """

    failures: Count = 1
    timeouts: Count = 2
    base_seconds: Seconds = 1.0
    max_seconds: Seconds = 5.0
    probe_path: Path = "/health"
    probe_seconds: Seconds = 1.0

    def options(self) -> HealthOptions:
        longest = max(self.base_seconds, self.max_seconds)
        return HealthOptions(self.failures, self.base_seconds, longest, self.timeouts)

    def probe(self) -> ProbeOptions:
        return ProbeOptions(self.probe_path, self.probe_seconds)


class ScrapeSettings(_Strict, frozen=True):
    """`engine` is whose metric names are read, unless the pod's `engine_label` says otherwise. `port` None:
    the port that serves. A reading older than `staleness_ms` is none.
    """

    engine: Engine = "vllm"
    engine_label: str = "llm-d.ai/engine-type"
    path: Path = "/metrics"
    port: Annotated[int, Meta(gt=0, le=65_535)] | None = None
    interval_ms: Count = 200
    timeout_ms: Count = 1000
    staleness_ms: Count = 2000
    concurrency: Count = 32


class _TargetSettings(_Strict, frozen=True):
    model: str
    weight: Annotated[int, Meta(ge=0)] = 1


class RewriteSettings(_Strict, frozen=True):
    """`models` empty: every model. A request for one of them asks for one of `targets`, by weight."""

    targets: Annotated[list[_TargetSettings], Meta(min_length=1)]
    models: list[str] = []


def fixed_rules(objectives: dict[str, int], rewrites: list[RewriteSettings]) -> PoolRules:
    rules = tuple(
        RewriteRule(
            frozenset(each.models),
            tuple(RewriteTarget(target.model, target.weight) for target in each.targets),
        )
        for each in rewrites
    )
    return PoolRules(objectives, (ModelRewrite("settings", rules),) if rules else ())


def check_endpoints(endpoints: EndpointsSettings, *, fixed: bool, source: str) -> None:
    """`fixed`: objectives or model rewrites stand in the settings. Raises SettingsError."""
    pool = endpoints.pool
    if (endpoints.file is None) == (pool is None):
        raise SettingsError(source, "give either file or pool", "endpoints")
    if pool is None:
        return
    if pool.kubeconfig is not None and pool.api_server is not None:
        raise SettingsError(source, "give either kubeconfig or api_server", "endpoints.pool")
    if pool.api_server is not None:
        try:
            canonical_address(pool.api_server.removeprefix("http://"))
        except AddressError as error:
            raise SettingsError(source, str(error), "endpoints.pool.api_server") from None
    if fixed and pool.rules:
        problem = "the pool's own objects say this; set endpoints.pool.rules to false to say it here"
        raise SettingsError(source, problem, "objectives, model_rewrites")
