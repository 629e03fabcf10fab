"""Endpoints and rules of an InferencePool: which objects are followed, and what depends on what."""

import asyncio
from collections.abc import Callable, Mapping
from typing import Final

from epp_adapter.discovery.pool_state import PoolState, Resource
from epp_adapter.discovery.watching import KubeApi, Watcher, WatchEvent, WatchOptions
from epp_adapter.endpoints import EndpointSnapshot
from epp_adapter.pool_rules import PoolRules

__all__ = ["PoolDiscovery"]

_LLMD: Final = "/apis/llm-d.ai/v1alpha2"
_OLD: Final = "/apis/inference.networking.x-k8s.io/v1alpha2"
_RULES: Final[Mapping[Resource, tuple[str, str]]] = {
    Resource.OBJECTIVES: (_LLMD, "inferenceobjectives"),
    Resource.OLD_OBJECTIVES: (_OLD, "inferenceobjectives"),
    Resource.REWRITES: (_LLMD, "inferencemodelrewrites"),
    Resource.OLD_REWRITES: (_OLD, "inferencemodelrewrites"),
}


class PoolDiscovery:
    """An EndpointSource and a RuleSource. `run` keeps them in step with the cluster.

    Pods are followed by the pool's selector, and anew when that changes. `observe` hears of every watch.
    """

    def __init__(
        self,
        api: KubeApi,
        state: PoolState,
        *,
        pool_name: str,
        namespace: str,
        rules: bool = True,
        options: WatchOptions | None = None,
        observe: Callable[[Resource, WatchEvent], None] = lambda *_: None,
    ) -> None:
        self._state = state
        options = options or WatchOptions()
        by_name = {"fieldSelector": f"metadata.name={pool_name}"}

        def watcher(
            resource: Resource, path: str, selector: Callable[[], Mapping[str, str] | None]
        ) -> Watcher:
            return Watcher(resource, path, api, state, options, selector, observe)

        self._pool = watcher(
            Resource.POOLS,
            f"/apis/inference.networking.k8s.io/v1/namespaces/{namespace}/inferencepools",
            lambda: by_name,
        )
        self._pods = watcher(Resource.PODS, f"/api/v1/namespaces/{namespace}/pods", self._pod_selector)
        self._others = [
            watcher(resource, f"{group}/namespaces/{namespace}/{plural}", dict)
            for resource, (group, plural) in (_RULES.items() if rules else ())
        ]
        self._followed: Mapping[str, str] | None = None
        self._pool.changed = self._pool_changed

    def current(self) -> EndpointSnapshot:
        return self._state.endpoints

    def rules(self) -> PoolRules:
        return self._state.rules

    async def synced(self) -> None:
        """Wait until the pool exists and all that belongs to it was listed once."""
        for watcher in (self._pool, self._pods, *self._others):
            await watcher.synced.wait()

    async def run(self) -> None:
        """Runs until it is cancelled."""
        await asyncio.gather(*(watcher.run() for watcher in (self._pool, self._pods, *self._others)))

    def _pod_selector(self) -> Mapping[str, str] | None:
        labels = self._followed = self._state.selector
        if not labels:
            return None
        return {"labelSelector": ",".join(f"{name}={value}" for name, value in sorted(labels.items()))}

    def _pool_changed(self) -> None:
        if self._state.selector != self._followed:
            self._pods.restart()
