"""An InferencePool and what belongs to it, from Kubernetes objects to endpoints and rules. Pure.

Objects come as the API server's JSON, listed or changed one by one; what cannot be read is left out and
reported. Sources: api/v1/inferencepool_types.go (Gateway API Inference Extension), apix/v1alpha2
(llm-d-router). A pod is an endpoint for each of the pool's target ports. It is ready by its Ready condition,
and not while it is being deleted: a pod that terminates stays Ready for a while.
"""

from collections.abc import Callable, Iterable, Mapping
from enum import StrEnum
from typing import Annotated, Any, Final, TypeVar

import msgspec
from msgspec import Meta

from epp_adapter.dynamo_ids import dynamo_instance_id_of_pod
from epp_adapter.endpoints import AddressError, Endpoint, EndpointSnapshot, canonical_address
from epp_adapter.pool_rules import ModelRewrite, PoolRules, RewriteRule, RewriteTarget

__all__ = ["Change", "PoolState", "Resource"]

T = TypeVar("T", bound="_Object")
Port = Annotated[int, Meta(ge=1, le=65_535)]


class Resource(StrEnum):
    """What is followed; a metric label. Of the two API groups the first wins where both have a name."""

    POOLS = "inferencepools"
    PODS = "pods"
    OBJECTIVES = "inferenceobjectives"
    OLD_OBJECTIVES = "old_inferenceobjectives"
    REWRITES = "inferencemodelrewrites"
    OLD_REWRITES = "old_inferencemodelrewrites"


class Change(StrEnum):
    ADDED = "ADDED"
    MODIFIED = "MODIFIED"
    DELETED = "DELETED"


class _Camel(msgspec.Struct, frozen=True, rename="camel"):
    pass


class _Meta(_Camel, frozen=True):
    name: str
    labels: dict[str, str] | None = None
    creation_timestamp: str | None = None
    deletion_timestamp: str | None = None


class _Object(_Camel, frozen=True):
    metadata: _Meta


class _Selector(_Camel, frozen=True):
    match_labels: dict[str, str]


class _TargetPort(_Camel, frozen=True):
    number: Port


class _PoolSpec(_Camel, frozen=True):
    selector: _Selector
    target_ports: Annotated[list[_TargetPort], Meta(min_length=1)]


class _Pool(_Object, frozen=True):
    spec: _PoolSpec


class _Condition(_Camel, frozen=True):
    type: str
    status: str


class _PodStatus(msgspec.Struct, frozen=True):
    phase: str | None = None
    pod_ip: str | None = msgspec.field(default=None, name="podIP")
    conditions: list[_Condition] | None = None


class _Pod(_Object, frozen=True):
    status: _PodStatus = _PodStatus()


class _PoolRef(_Camel, frozen=True):
    name: str


class _ObjectiveSpec(_Camel, frozen=True):
    pool_ref: _PoolRef
    priority: int | None = None


class _Objective(_Object, frozen=True):
    spec: _ObjectiveSpec


class _ModelMatch(_Camel, frozen=True):
    value: str
    type: str = "Exact"


class _Match(_Camel, frozen=True):
    model: _ModelMatch | None = None


class _Target(_Camel, frozen=True):
    model_rewrite: str
    weight: Annotated[int, Meta(ge=0)] | None = None


class _Rule(_Camel, frozen=True):
    targets: Annotated[list[_Target], Meta(min_length=1)]
    matches: list[_Match] | None = None


class _RewriteSpec(_Camel, frozen=True):
    pool_ref: _PoolRef
    rules: list[_Rule]


class _Rewrite(_Object, frozen=True):
    spec: _RewriteSpec


_TYPES: Final[Mapping[Resource, type[_Object]]] = {
    Resource.POOLS: _Pool,
    Resource.PODS: _Pod,
    Resource.OBJECTIVES: _Objective,
    Resource.OLD_OBJECTIVES: _Objective,
    Resource.REWRITES: _Rewrite,
    Resource.OLD_REWRITES: _Rewrite,
}
_EXACT: Final = "Exact"
_FINISHED: Final = frozenset({"Succeeded", "Failed"})


class PoolState:
    """Owns the objects. `endpoints` and `rules` are what they amount to now; they are worked out when
    somebody asks, since a rollout brings hundreds of changes. Any thread may ask: what is kept is kept with
    the version it was worked out from, and no dict that somebody may be reading is ever changed.

    `unreadable` hears of each object that is left out.
    """

    def __init__(
        self,
        pool_name: str,
        *,
        dynamo_workers: bool = False,
        unreadable: Callable[[Resource], None] = lambda _: None,
    ) -> None:
        self._pool_name = pool_name
        self._dynamo_workers = dynamo_workers
        self._unreadable = unreadable
        self._objects: dict[Resource, dict[str, _Object]] = {resource: {} for resource in Resource}
        self._version = 0
        self._endpoints = (0, EndpointSnapshot())
        self._rules = (0, PoolRules())

    @property
    def endpoints(self) -> EndpointSnapshot:
        version, found = self._version, self._endpoints
        if found[0] != version:
            found = self._endpoints = (version, EndpointSnapshot(tuple(self._find_endpoints())))
        return found[1]

    @property
    def rules(self) -> PoolRules:
        version, found = self._version, self._rules
        if found[0] != version:
            rules = PoolRules(self._find_priorities(), tuple(self._find_rewrites()))
            found = self._rules = (version, rules)
        return found[1]

    @property
    def selector(self) -> Mapping[str, str] | None:
        """The labels of the pool's pods; None while there is no such pool."""
        pool = self._pool()
        return None if pool is None else pool.spec.selector.match_labels

    def replace(self, resource: Resource, objects: Iterable[Any]) -> None:
        """A list of all of them: who is not among them is gone."""
        read = [self._read(resource, each) for each in objects]
        self._objects[resource] = {each.metadata.name: each for each in read if each is not None}
        self._version += 1

    def apply(self, resource: Resource, change: Change, changed: Any) -> None:
        """One change. An object that can no longer be read is gone, too."""
        name = _name(changed)
        read = None if change is Change.DELETED else self._read(resource, changed)
        objects = dict(self._objects[resource])
        if read is not None:
            objects[read.metadata.name] = read
        elif name is not None:
            objects.pop(name, None)
        self._objects[resource] = objects
        self._version += 1

    def _read(self, resource: Resource, value: Any) -> _Object | None:
        try:
            return msgspec.convert(value, _TYPES[resource])
        except msgspec.ValidationError:
            self._unreadable(resource)
            return None

    def _pool(self) -> _Pool | None:
        pool = self._objects[Resource.POOLS].get(self._pool_name)
        if not isinstance(pool, _Pool) or pool.metadata.deletion_timestamp is not None:
            return None
        return pool

    def _all(self, resources: tuple[Resource, ...], kind: type[T]) -> Iterable[T]:
        """By name, those of the later resource first, so that the earlier one's have the last word."""
        for resource in reversed(resources):
            for _, each in sorted(self._objects[resource].items()):
                if isinstance(each, kind):
                    yield each

    def _find_endpoints(self) -> Iterable[Endpoint]:
        pool = self._pool()
        wanted = pool.spec.selector.match_labels if pool else {}
        if pool is None or not wanted:  # an empty selector would be every pod of the namespace
            return
        for pod in self._all((Resource.PODS,), _Pod):
            labels = pod.metadata.labels or {}
            ip = pod.status.pod_ip
            if not ip or pod.status.phase in _FINISHED or not wanted.items() <= labels.items():
                continue
            worker = dynamo_instance_id_of_pod(pod.metadata.name) if self._dynamo_workers else None
            for port in pool.spec.target_ports:
                try:
                    address = canonical_address(
                        f"[{ip}]:{port.number}" if ":" in ip else f"{ip}:{port.number}"
                    )
                except AddressError:
                    self._unreadable(Resource.PODS)
                    break
                yield Endpoint(address, worker, ready=_is_ready(pod), labels=labels)

    def _find_priorities(self) -> dict[str, int]:
        return {
            each.metadata.name: each.spec.priority or 0
            for each in self._all((Resource.OBJECTIVES, Resource.OLD_OBJECTIVES), _Objective)
            if each.spec.pool_ref.name == self._pool_name
        }

    def _find_rewrites(self) -> Iterable[ModelRewrite]:
        found = {
            each.metadata.name: each
            for each in self._all((Resource.REWRITES, Resource.OLD_REWRITES), _Rewrite)
            if each.spec.pool_ref.name == self._pool_name
        }
        for name, each in found.items():
            rules = tuple(rule for rule in map(_rule, each.spec.rules) if rule is not None)
            yield ModelRewrite(name, rules, created=each.metadata.creation_timestamp or "")


def _rule(rule: _Rule) -> RewriteRule | None:
    """None where it matches by something else than an exact model, which this version cannot."""
    matches = rule.matches or []
    models = [match.model for match in matches if match.model is not None]
    if len(models) != len(matches) or any(model.type != _EXACT for model in models):
        return None
    targets = tuple(RewriteTarget(target.model_rewrite, _weight(target)) for target in rule.targets)
    return RewriteRule(frozenset(model.value for model in models), targets)


def _weight(target: _Target) -> int:
    return 1 if target.weight is None else target.weight


def _is_ready(pod: _Pod) -> bool:
    conditions = pod.status.conditions or []
    ready = any(each.type == "Ready" and each.status == "True" for each in conditions)
    return ready and pod.metadata.deletion_timestamp is None


def _name(value: Any) -> str | None:
    metadata = value.get("metadata") if isinstance(value, dict) else None
    name = metadata.get("name") if isinstance(metadata, dict) else None
    return name if isinstance(name, str) else None
