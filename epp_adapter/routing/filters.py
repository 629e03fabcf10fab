"""Filters: pure functions that say which candidates stay, as indices in the candidates' order.

Rules are the reference's (llm-d-router, pkg/epp/framework/plugins/scheduling/filter, and the utilization
detector, which is a filter too).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from epp_adapter.endpoints import Endpoint, parse_subset_hint
from epp_adapter.routing.load import EndpointLoad
from epp_adapter.routing.saturation import UtilizationLimits, is_stale

__all__ = [
    "DECODE_ROLES",
    "ENCODE_ROLES",
    "PREFILL_ROLES",
    "ROLE_LABEL",
    "TEST_SELECTION_HEADER",
    "LabelRequirement",
    "Operator",
    "by_label",
    "by_selector",
    "by_test_header",
    "by_utilization",
]

ROLE_LABEL: Final = "llm-d.ai/role"
DECODE_ROLES: Final = frozenset({"decode", "prefill-decode", "both", "encode-prefill-decode"})
PREFILL_ROLES: Final = frozenset(
    {"prefill", "encode-prefill", "prefill-decode", "both", "encode-prefill-decode"}
)
ENCODE_ROLES: Final = frozenset({"encode", "encode-prefill", "encode-prefill-decode"})

# Gateway API Inference Extension, conformance tests.
TEST_SELECTION_HEADER: Final = "test-epp-endpoint-selection"


class Operator(StrEnum):
    """How a Kubernetes label selector compares (meta/v1 LabelSelectorRequirement)."""

    IN = "In"
    NOT_IN = "NotIn"
    EXISTS = "Exists"
    DOES_NOT_EXIST = "DoesNotExist"


@dataclass(frozen=True, slots=True)
class LabelRequirement:
    key: str
    operator: Operator
    values: frozenset[str] = frozenset()

    def holds(self, labels: Mapping[str, str]) -> bool:
        """As Kubernetes compares: NotIn holds where the label is missing."""
        present = self.key in labels
        if self.operator is Operator.EXISTS:
            return present
        if self.operator is Operator.DOES_NOT_EXIST:
            return not present
        among = present and labels[self.key] in self.values
        return among if self.operator is Operator.IN else not among


def by_label(
    endpoints: Sequence[Endpoint], label: str, values: frozenset[str], *, allows_no_label: bool
) -> list[int]:
    """by-label, decode-filter, prefill-filter, encode-filter: the label's value is one of `values`."""
    return [
        index
        for index, endpoint in enumerate(endpoints)
        if (allows_no_label if (value := endpoint.labels.get(label)) is None else value in values)
    ]


def by_selector(endpoints: Sequence[Endpoint], requirements: Sequence[LabelRequirement]) -> list[int]:
    """label-selector-filter: every requirement holds."""
    return [
        index
        for index, endpoint in enumerate(endpoints)
        if all(requirement.holds(endpoint.labels) for requirement in requirements)
    ]


def by_test_header(endpoints: Sequence[Endpoint], headers: Mapping[str, str]) -> list[int]:
    """header-based-testing-filter: those the header names, by ip or ip:port; none where it is missing."""
    hint = parse_subset_hint(headers.get(TEST_SELECTION_HEADER, ""))
    return [index for index, endpoint in enumerate(endpoints) if hint and hint.allows(endpoint)]


def by_utilization(loads: Sequence[EndpointLoad | None], limits: UtilizationLimits, now: float) -> list[int]:
    """utilization-filter: those whose metrics are fresh and below both limits, headroom included.

    All stay where none would: a full pool still serves.
    """
    queue_limit = limits.queue_depth * (1.0 + limits.headroom)
    kv_limit = limits.kv_utilization * (1.0 + limits.headroom)
    free = [
        index
        for index, load in enumerate(loads)
        if load is not None
        and not is_stale(load, limits, now)
        and load.waiting < queue_limit
        and load.kv_utilization < kv_limit
    ]
    return free or list(range(len(loads)))
