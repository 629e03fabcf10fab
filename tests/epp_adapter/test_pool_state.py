import pytest
from hypothesis import given
from hypothesis import strategies as st

from epp_adapter.discovery.pool_state import Change, PoolState, Resource
from epp_adapter.dynamo_ids import dynamo_instance_id_of_pod
from epp_adapter.endpoints import Endpoint
from epp_adapter.pool_rules import PoolRules
from tests.epp_adapter.kube_objects import objective, pod, pool, rewrite, rule

A = pod("a", "10.0.0.1")
B = pod("b", "10.0.0.2")


def state_of(*pods, **options):
    state = PoolState("pool", **options)
    state.replace(Resource.POOLS, [pool()])
    state.replace(Resource.PODS, pods)
    return state


def ready(state):
    return [endpoint.address for endpoint in state.endpoints.ready()]


def test_a_ready_pod_is_an_endpoint_with_its_labels():
    state = state_of(A, pod("b", "10.0.0.2", labels={"llm-d.ai/role": "decode"}))
    assert ready(state) == ["10.0.0.1:8000", "10.0.0.2:8000"]
    assert state.endpoints.endpoints[1].labels == {"app": "vllm", "llm-d.ai/role": "decode"}


@pytest.mark.parametrize("unready", [pod("b", "10.0.0.2", ready=False), pod("b", "10.0.0.2", deleting=True)])
def test_a_pod_that_is_not_ready_or_being_deleted_is_known_and_not_ready(unready):
    state = state_of(A, unready)
    assert ready(state) == ["10.0.0.1:8000"]
    assert len(state.endpoints.endpoints) == 2


@pytest.mark.parametrize(
    "other",
    [
        pod("b", None),
        pod("b", ""),
        pod("b", "10.0.0.2", labels={"app": "other"}),
        pod("b", "10.0.0.2", phase="Failed"),
        pod("b", "10.0.0.2", phase="Succeeded"),
    ],
)
def test_a_pod_without_an_address_of_other_labels_or_at_its_end_is_none(other):
    assert len(state_of(A, other).endpoints.endpoints) == 1


def test_each_target_port_is_an_endpoint():
    state = state_of(A, pod("six", "fd00::7"))
    state.replace(Resource.POOLS, [pool(ports=(8000, 8001))])
    assert ready(state) == ["10.0.0.1:8000", "10.0.0.1:8001", "[fd00::7]:8000", "[fd00::7]:8001"]


def test_dynamo_workers_are_known_by_their_pods_names():
    endpoint = state_of(A, dynamo_workers=True).endpoints.endpoints[0]
    assert endpoint == Endpoint("10.0.0.1:8000", dynamo_instance_id_of_pod("a"))


def test_changes_are_applied_one_by_one():
    state = state_of(A)
    state.apply(Resource.PODS, Change.ADDED, B)
    assert ready(state) == ["10.0.0.1:8000", "10.0.0.2:8000"]
    state.apply(Resource.PODS, Change.MODIFIED, pod("a", "10.0.0.1", ready=False))
    assert ready(state) == ["10.0.0.2:8000"]
    state.apply(Resource.PODS, Change.DELETED, B)
    assert ready(state) == []


def test_a_list_is_all_there_is():
    state = state_of(A, B)
    state.replace(Resource.PODS, [B])
    assert ready(state) == ["10.0.0.2:8000"]


def test_without_the_pool_there_are_no_endpoints_and_no_selector():
    state = state_of(A)
    state.apply(Resource.POOLS, Change.ADDED, pool("another"))
    assert ready(state) == ["10.0.0.1:8000"]
    state.apply(Resource.POOLS, Change.DELETED, pool())
    assert (ready(state), state.selector) == ([], None)


def test_the_selector_decides():
    state = state_of(A)
    assert state.selector == {"app": "vllm"}
    state.apply(Resource.POOLS, Change.MODIFIED, pool(labels={"app": "vllm", "tier": "1"}))
    assert ready(state) == []


class TestUnreadable:
    @pytest.fixture
    def heard(self):
        return []

    @pytest.mark.parametrize(
        "broken",
        [None, 7, {}, {"metadata": {}}, {"metadata": {"name": 7}}, pod("b", "no-ip"), pod("b", "1.2.3")],
    )
    def test_an_object_that_cannot_be_read_is_left_out_and_reported(self, heard, broken):
        state = state_of(A, broken, unreadable=heard.append)
        assert ready(state) == ["10.0.0.1:8000"]
        assert heard == [Resource.PODS]

    def test_a_pool_that_became_unreadable_is_gone(self, heard):
        state = state_of(A, unreadable=heard.append)
        state.apply(Resource.POOLS, Change.MODIFIED, {**pool(), "spec": {"targetPorts": []}})
        assert (ready(state), heard) == ([], [Resource.POOLS])

    @given(
        st.recursive(st.none() | st.booleans() | st.text(max_size=3) | st.integers(), st.lists, max_leaves=5)
    )
    def test_nothing_breaks_it(self, value):
        state = state_of(A)
        for resource in Resource:
            state.apply(resource, Change.MODIFIED, value)
            state.apply(resource, Change.MODIFIED, {"metadata": value, "spec": value, "status": value})
        assert ready(state) == ["10.0.0.1:8000"]


class TestRules:
    def test_objectives_of_the_pool_have_priorities_and_the_newer_group_wins(self):
        state = state_of()
        state.replace(
            Resource.OLD_OBJECTIVES, [objective("batch", -1), objective("old", 3), objective("none")]
        )
        state.replace(Resource.OBJECTIVES, [objective("batch", -9), objective("x", 5, pool_name="other")])
        assert state.rules.objectives == {"batch": -9, "old": 3, "none": 0}

    def test_rewrites_of_the_pool_are_rules_by_age(self):
        state = state_of()
        state.replace(
            Resource.REWRITES,
            [
                rewrite("young", rule("m", to="young"), created="2026-03-01T00:00:00Z"),
                rewrite("old", rule("m", to="old"), rule(to="any", weight=2)),
                rewrite("elsewhere", rule("m", to="elsewhere"), pool_name="other"),
            ],
        )
        assert state.rules.target("m", lambda: 0.0) == "old"
        assert state.rules.target("n", lambda: 0.0) == "any"
        state.apply(Resource.REWRITES, Change.DELETED, rewrite("old"))
        assert state.rules.target("m", lambda: 0.0) == "young"
        assert state.rules.target("n", lambda: 0.0) is None

    def test_a_rule_that_matches_otherwise_is_left_out(self):
        odd = {"matches": [{"model": {"type": "Prefix", "value": "m"}}], "targets": [{"modelRewrite": "x"}]}
        state = state_of()
        state.replace(Resource.REWRITES, [rewrite("r", odd, {"matches": [{}], "targets": odd["targets"]})])
        assert state.rules.target("m", lambda: 0.0) is None

    def test_what_is_gone_says_nothing(self):
        state = state_of()
        state.replace(Resource.OBJECTIVES, [objective("a", 1)])
        state.replace(Resource.OBJECTIVES, [])
        assert state.rules == PoolRules()
