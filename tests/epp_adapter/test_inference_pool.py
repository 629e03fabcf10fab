"""Discovery of an InferencePool from an API server on loopback, good and bad, by the shipped client."""

import asyncio
import json
from collections import Counter
from contextlib import asynccontextmanager, suppress

import pytest
from aiohttp import web

from epp_adapter.discovery import kubernetes
from epp_adapter.discovery.inference_pool import PoolDiscovery
from epp_adapter.discovery.kubernetes import ClusterConfigError, connected
from epp_adapter.discovery.pool_state import PoolState, Resource
from epp_adapter.discovery.watching import ApiError, FakeKubeApi, Watcher, WatchEvent, WatchOptions
from tests.epp_adapter.fake_kube import fake_kube
from tests.epp_adapter.kube_objects import (
    OBJECTIVES,
    OLD_OBJECTIVES,
    OLD_REWRITES,
    PODS,
    POOLS,
    REWRITES,
    objective,
    pod,
    pool,
    rewrite,
    rule,
)

QUICK = WatchOptions(watch_seconds=30, base_seconds=0.02, max_seconds=0.1)


class Cluster:
    def __init__(self, kube, discovery, seen):
        self.kube = kube
        self.discovery = discovery
        self.seen = seen

    def ready(self):
        return [endpoint.address for endpoint in self.discovery.current().ready()]

    async def until(self, condition):
        async with asyncio.timeout(5):
            while not condition():  # noqa: ASYNC110  # no event tells
                await asyncio.sleep(0.005)

    async def until_ready(self, *addresses):
        await self.until(lambda: self.ready() == list(addresses))


@asynccontextmanager
async def following(kube, url, options=QUICK):
    seen = Counter()
    async with connected(api_server=url) as api:
        discovery = PoolDiscovery(
            api,
            PoolState("pool"),
            pool_name="pool",
            namespace="ns",
            options=options,
            observe=lambda resource, event: seen.update([(resource, event)]),
        )
        running = asyncio.create_task(discovery.run())
        try:
            yield Cluster(kube, discovery, seen)
        finally:
            running.cancel()
            with suppress(asyncio.CancelledError):
                await running


@asynccontextmanager
async def cluster(**options):
    async with fake_kube() as (kube, url):
        await kube[POOLS].put(pool())
        for number in (1, 2, 3):
            await kube[PODS].put(pod(f"pod-{number}", f"10.0.0.{number}"))
        async with following(kube, url, **options) as found:
            async with asyncio.timeout(5):
                await found.discovery.synced()
            yield found


ALL = ("10.0.0.1:8000", "10.0.0.2:8000", "10.0.0.3:8000")


async def test_what_is_there_is_listed_page_by_page_and_what_comes_and_goes_is_watched():
    async with cluster() as found:
        assert found.ready() == list(ALL)
        assert [query.get("continue") for query in found.kube[PODS].lists] == [None, "2"]
        assert found.kube[PODS].lists[0]["labelSelector"] == "app=vllm"
        assert found.kube[POOLS].lists[0]["fieldSelector"] == "metadata.name=pool"
        await found.kube[PODS].put(pod("pod-2", "10.0.0.2", ready=False))
        await found.kube[PODS].put(pod("pod-4", "10.0.0.4"))
        await found.kube[PODS].delete("pod-1")
        await found.until_ready("10.0.0.3:8000", "10.0.0.4:8000")
        assert found.kube[PODS].watches[0]["allowWatchBookmarks"] == "true"
        assert len(found.kube[PODS].watches) == 1


async def test_bookmarks_change_nothing():
    async with cluster() as found:
        await asyncio.sleep(0.1)
        assert found.ready() == list(ALL)
        assert len(found.kube[PODS].watches) == 1


@pytest.mark.parametrize("in_stream", [False, True])
async def test_after_410_gone_all_is_listed_anew(in_stream):
    async with cluster() as found:
        pods = found.kube[PODS]
        pods.in_stream = in_stream
        del pods.objects["pod-1"]  # a change that no watch will tell
        await pods.forget()
        pods.cut()
        await found.until_ready(*ALL[1:])
        pods.forgotten = pods.version  # and now every watch is too old
        pods.cut()
        await found.until(lambda: found.seen[Resource.PODS, WatchEvent.EXPIRED] >= 2)
        assert found.ready() == list(ALL[1:])
        assert len(pods.lists) < 60, "it does not ask without pause"
        pods.forgotten = 0
        await pods.put(pod("pod-5", "10.0.0.5"))
        await found.until_ready(*ALL[1:], "10.0.0.5:8000")


async def test_a_connection_that_breaks_loses_nothing():
    async with cluster() as found:
        pods = found.kube[PODS]
        for number in range(4, 8):
            pods.cut()
            await pods.put(pod(f"pod-{number}", f"10.0.0.{number}"))
        await found.until_ready(*ALL, *(f"10.0.0.{number}:8000" for number in range(4, 8)))


async def test_while_the_server_refuses_the_last_endpoints_stay():
    async with cluster() as found:
        pods = found.kube[PODS]
        pods.status = 500
        del pods.objects["pod-1"]
        pods.cut()
        await found.until(lambda: found.seen[Resource.PODS, WatchEvent.FAILED] >= 3)
        assert found.ready() == list(ALL)
        pods.status = 200
        await found.until_ready(*ALL[1:])


async def test_a_watch_that_ends_is_followed_by_a_list():
    options = WatchOptions(watch_seconds=1, base_seconds=0.02, max_seconds=0.1)
    async with cluster(options=options) as found:
        del found.kube[PODS].objects["pod-1"]
        await found.until(lambda: found.seen[Resource.PODS, WatchEvent.ENDED] >= 1)
        await found.until_ready(*ALL[1:])


async def test_another_selector_is_other_pods():
    async with cluster() as found:
        await found.kube[PODS].put(pod("new", "10.0.1.1", labels={"app": "new"}))
        await found.kube[POOLS].put(pool(labels={"app": "new"}, ports=(9000,)))
        await found.until_ready("10.0.1.1:9000")
        assert found.kube[PODS].lists[-1]["labelSelector"] == "app=new"


async def test_a_pool_that_is_deleted_has_no_endpoints_until_it_is_back():
    async with cluster() as found:
        await found.kube[POOLS].delete("pool")
        await found.until_ready()
        await found.kube[POOLS].put(pool())
        await found.until_ready(*ALL)


async def test_kinds_that_the_cluster_lacks_are_empty_and_rules_of_both_groups_are_followed():
    async with cluster() as found:
        assert found.seen[Resource.OBJECTIVES, WatchEvent.ABSENT] == 1
        assert found.discovery.rules().objectives == {}
        await found.kube[OLD_OBJECTIVES].put(objective("batch", -1))
        await found.kube[OBJECTIVES].put(objective("urgent", 9))
        await found.kube[REWRITES].put(rewrite("new", rule("a", to="x")))
        await found.kube[OLD_REWRITES].put(rewrite("old", rule("b", to="y")))
        await found.until(lambda: dict(found.discovery.rules().objectives) == {"batch": -1, "urgent": 9})
        await found.until(lambda: len(found.discovery.rules().rewrites) == 2)
        assert found.discovery.rules().target("b", lambda: 0.0) == "y"


async def test_without_a_pool_it_is_not_in_sync():
    async with fake_kube() as (kube, url):
        await kube[POOLS].put(pool("another"))
        async with following(kube, url) as found:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.2):
                    await found.discovery.synced()
            await kube[PODS].put(pod("pod-1", "10.0.0.1"))
            await kube[POOLS].put(pool())
            async with asyncio.timeout(5):
                await found.discovery.synced()
            assert found.ready() == ["10.0.0.1:8000"]


async def test_a_server_that_is_not_there_is_waited_for():
    async with fake_kube() as (kube, url):
        pass
    async with following(kube, url) as found:
        await found.until(lambda: found.seen[Resource.POOLS, WatchEvent.FAILED] >= 2)
        assert found.ready() == []


async def test_without_a_configuration_of_a_cluster_the_operator_is_told(tmp_path):
    for options in ({}, {"kubeconfig": str(tmp_path / "none")}):
        with pytest.raises(ClusterConfigError, match="no configuration of a Kubernetes cluster"):
            async with connected(**options):
                pass


async def test_a_kubeconfigs_token_goes_with_every_request(tmp_path):
    async with fake_kube() as (kube, url):
        await kube[POOLS].put(pool())
        config = tmp_path / "config"
        named = [{"name": "n", "context": {"cluster": "n", "user": "n"}}]
        document = {"apiVersion": "v1", "kind": "Config", "current-context": "n", "contexts": named}
        document["clusters"] = [{"name": "n", "cluster": {"server": url}}]
        document["users"] = [{"name": "n", "user": {"token": "secret"}}]
        config.write_text(json.dumps(document))
        async with connected(kubeconfig=str(config)) as api:
            objects, _ = await api.list(POOLS, {})
    assert [each["metadata"]["name"] for each in objects] == ["pool"]
    assert kube.headers[0]["authorization"] == "Bearer secret"


class TestWatcher:
    """Against the shipped fake of the API."""

    @asynccontextmanager
    async def watching(self, api, **options):
        events = []
        state = PoolState("pool")
        watcher = Watcher(
            Resource.POOLS,
            POOLS,
            api,
            state,
            WatchOptions(**options),
            dict,
            lambda _, event: events.append(event),
        )
        running = asyncio.create_task(watcher.run())
        try:
            yield state, events
        finally:
            running.cancel()
            with suppress(asyncio.CancelledError):
                await running

    async def test_events_of_a_later_kubernetes_are_passed_over(self):
        api = FakeKubeApi()
        async with self.watching(api) as (state, _):
            await api.events.put({"type": "SOMETHING", "object": pool()})
            await api.events.put({})
            await api.events.put({"type": "ADDED", "object": pool()})
            await asyncio.sleep(0.02)
            assert state.selector == {"app": "vllm"}

    async def test_a_server_that_ends_every_watch_at_once_is_not_asked_without_pause(self):
        api = FakeKubeApi()
        for _ in range(1000):
            await api.events.put(None)
        async with self.watching(api, base_seconds=0.02, max_seconds=0.05):
            await asyncio.sleep(0.3)
        assert 3 <= len(api.lists) <= 25

    async def test_refusals_are_waited_out_longer_and_longer(self):
        api = FakeKubeApi()
        api.refusal = ApiError(403, "forbidden")
        async with self.watching(api, base_seconds=0.02, max_seconds=10) as (_, events):
            await asyncio.sleep(0.5)
        assert 2 <= len(api.lists) <= 8
        assert set(events) == {WatchEvent.FAILED}


class TestOddAnswers:
    """An API server, or something in its place, that answers nonsense."""

    @asynccontextmanager
    async def answering(self, *, body=b"", pieces=()):
        async def answer(request):
            response = web.StreamResponse()
            await response.prepare(request)
            for piece in pieces or (body,):
                await response.write(piece)
            return response

        app = web.Application()
        app.router.add_get("/{path:.*}", answer)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            async with connected(api_server=f"http://127.0.0.1:{runner.addresses[0][1]}") as api:
                yield api
        finally:
            await runner.cleanup()

    @pytest.mark.parametrize(
        ("body", "problem"),
        [
            (b"<html>", "no JSON"),
            (b"[]", "no list of objects"),
            (b"{}", "no list of objects"),
            (b'{"metadata": {}, "items": {}}', "no list of objects"),
            (b'{"metadata": {"continue": "again"}, "items": []}', "more than"),
        ],
    )
    async def test_what_is_no_list_is_an_error(self, body, problem, monkeypatch):
        monkeypatch.setattr(kubernetes, "_MAX_PAGES", 3)
        async with self.answering(body=body) as api:
            with pytest.raises(ApiError, match=problem):
                await api.list(PODS, {})

    @pytest.mark.parametrize(
        ("pieces", "problem"),
        [
            ((b"<html>\n",), "no JSON"),
            ((b"[]\n",), "no object"),
            ((b'{"type": "', b"x" * 200_000), "too large"),
        ],
    )
    async def test_what_is_no_event_is_an_error(self, pieces, problem, monkeypatch):
        monkeypatch.setattr(kubernetes, "_MAX_EVENT_BYTES", 100_000)
        async with self.answering(pieces=pieces) as api:
            with pytest.raises(ApiError, match=problem):
                async for _ in api.watch(PODS, {}):
                    pass

    async def test_what_follows_the_last_line_is_no_event(self):
        async with self.answering(pieces=(b'{"type": "ADDED"}\n{"ty',)) as api:
            assert [event async for event in api.watch(PODS, {})] == [{"type": "ADDED"}]


def test_outside_of_a_pod_the_namespace_is_default(tmp_path, monkeypatch):
    monkeypatch.setattr(kubernetes, "_NAMESPACE_FILE", str(tmp_path / "namespace"))
    assert kubernetes.own_namespace() == "default"
    (tmp_path / "namespace").write_text("team-a\n")
    assert kubernetes.own_namespace() == "team-a"
