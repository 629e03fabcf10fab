"""Filters and saturation: who stays, and who is shed."""

import pytest

from epp_adapter.endpoints import Endpoint
from epp_adapter.routing.filters import (
    DECODE_ROLES,
    PREFILL_ROLES,
    ROLE_LABEL,
    TEST_SELECTION_HEADER,
    LabelRequirement,
    Operator,
    by_label,
    by_selector,
    by_test_header,
    by_utilization,
)
from epp_adapter.routing.load import EndpointLoad
from epp_adapter.routing.saturation import UtilizationLimits, pool_saturation, sheds

LIMITS = UtilizationLimits()
NOW = 100.0


def endpoint(number: int, **labels: str) -> Endpoint:
    return Endpoint(f"10.0.0.{number}:8000", labels=labels)


def role(number: int, name: str | None) -> Endpoint:
    return Endpoint(f"10.0.0.{number}:8000", labels={ROLE_LABEL: name} if name else {})


def load(waiting: int, kv: float, age: float = 0.0) -> EndpointLoad:
    return EndpointLoad(waiting=waiting, running=0, kv_utilization=kv, updated_at=NOW - age)


class TestByLabel:
    POOL = tuple(role(n, name) for n, name in enumerate(["decode", "prefill", "both", None, "other"]))

    def test_decode_takes_its_roles_and_endpoints_without_any(self):
        assert by_label(self.POOL, ROLE_LABEL, DECODE_ROLES, allows_no_label=True) == [0, 2, 3]

    def test_prefill_takes_its_roles_only(self):
        assert by_label(self.POOL, ROLE_LABEL, PREFILL_ROLES, allows_no_label=False) == [1, 2]


@pytest.mark.parametrize(
    ("requirement", "kept"),
    [
        (LabelRequirement("zone", Operator.IN, frozenset({"a", "b"})), [0, 1]),
        (LabelRequirement("zone", Operator.NOT_IN, frozenset({"a"})), [1, 2]),
        (LabelRequirement("zone", Operator.EXISTS), [0, 1]),
        (LabelRequirement("zone", Operator.DOES_NOT_EXIST), [2]),
    ],
)
def test_a_selector_compares_as_kubernetes_does(requirement, kept):
    assert by_selector([endpoint(0, zone="a"), endpoint(1, zone="b"), endpoint(2)], [requirement]) == kept


def test_all_requirements_of_a_selector_must_hold():
    both = [
        LabelRequirement("zone", Operator.EXISTS),
        LabelRequirement("gpu", Operator.IN, frozenset({"h100"})),
    ]
    assert by_selector([endpoint(0, zone="a"), endpoint(1, zone="a", gpu="h100")], both) == [1]
    assert by_selector([endpoint(0)], []) == [0]


@pytest.mark.parametrize(
    ("header", "kept"),
    [
        ("10.0.0.1:8000", [1]),
        (" 10.0.0.1 , 10.0.0.0 ", [0, 1]),
        ("10.0.0.1:9", []),
        ("", []),
        (None, []),
    ],
)
def test_the_testing_header_chooses_by_ip_or_ip_and_port(header, kept):
    headers = {} if header is None else {TEST_SELECTION_HEADER: header}
    assert by_test_header([endpoint(0), endpoint(1)], headers) == kept


class TestByUtilization:
    def test_full_stale_and_unknown_endpoints_go(self):
        loads = [load(0, 0.1), load(5, 0.1), load(0, 0.8), load(0, 0.1, age=0.3), None]
        assert by_utilization(loads, LIMITS, NOW) == [0]

    def test_headroom_widens_both_limits(self):
        wide = UtilizationLimits(headroom=0.2)
        assert by_utilization([load(5, 0.9), load(6, 0.1), load(0, 0.97)], wide, NOW) == [0]

    def test_where_none_would_stay_all_do(self):
        assert by_utilization([load(9, 0.9), None], LIMITS, NOW) == [0, 1]


class TestSaturation:
    def test_it_is_the_mean_of_each_endpoints_fuller_resource(self):
        assert pool_saturation([load(5, 0.4), load(0, 0.4)], LIMITS, NOW) == pytest.approx(0.75)

    def test_an_endpoint_without_fresh_metrics_counts_as_full(self):
        assert pool_saturation([None, load(50, 0.0, age=0.21)], LIMITS, NOW) == 1.0

    def test_a_pool_without_endpoints_is_saturated(self):
        assert pool_saturation([], LIMITS, NOW) == 1.0

    @pytest.mark.parametrize(
        ("priority", "waiting", "shed"), [(-1, 5, True), (-1, 4, False), (0, 500, False), (7, 500, False)]
    )
    def test_only_negative_priorities_are_shed_and_only_from_1_on(self, priority, waiting, shed):
        assert sheds(priority, [load(waiting, 0.0)], LIMITS, NOW) is shed
