"""Alerts and dashboard ask only for what the services expose, in PromQL that parses."""

import json
from collections.abc import Iterator
from pathlib import Path

import promql_parser
import pytest
import yaml

from tests.monitoring.exposed import WORDS, all_series
from tokenext.declined import TROUBLE

FILES = Path(__file__).resolve().parents[2] / "charts" / "tokenext-chain" / "files"
ALERTS = yaml.safe_load((FILES / "alerts.yaml").read_text(encoding="utf-8"))
DASHBOARD = json.loads((FILES / "dashboard.json").read_text(encoding="utf-8"))
RULES = {rule["alert"]: rule for group in ALERTS["groups"] for rule in group["rules"]}
PANELS = {panel["title"]: panel for panel in DASHBOARD["panels"]}
EXPRESSIONS = {
    **{f"alert {name}": rule["expr"] for name, rule in RULES.items()},
    **{
        f"panel {title}, {target['refId']}": target["expr"].replace("$__rate_interval", "5m")
        for title, panel in PANELS.items()
        for target in panel["targets"]
    },
}
# Targets get these when they are scraped.
SCRAPED = frozenset({"job", "instance", "pod", "namespace", "container", "service"})
SERIES = all_series()


def selectors(node) -> Iterator:
    """Every selector of an expression."""
    if isinstance(node, promql_parser.VectorSelector):
        yield node
    for name in ("expr", "lhs", "rhs", "param", "vector_selector"):
        if (inner := getattr(node, name, None)) is not None:
            yield from selectors(inner)
    for inner in getattr(node, "args", None) or ():
        yield from selectors(inner)


def problems(expression: str) -> list[str]:
    """What an expression asks for and nobody exposes. Raises ValueError for what is no PromQL."""
    found = []
    for selector in selectors(promql_parser.parse(expression)):
        series = SERIES.get(selector.name)
        if series is None:
            found.append(f"no series {selector.name}")
            continue
        for matcher in selector.matchers.matchers:
            if matcher.name in SCRAPED:
                continue
            if series.labels is not None and matcher.name not in series.labels:
                found.append(f"{selector.name} has no label {matcher.name}")
            words = WORDS.get((selector.name, matcher.name))
            if words is not None and not (asked := set(matcher.value.split("|"))) <= words:
                found.append(f"{selector.name}: {matcher.name} is never {sorted(asked - words)}")
    return found


@pytest.mark.parametrize("name", EXPRESSIONS)
def test_an_expression_asks_only_for_what_is_exposed(name):
    assert problems(EXPRESSIONS[name]) == []
    assert list(selectors(promql_parser.parse(EXPRESSIONS[name])))


@pytest.mark.parametrize(
    ("expression", "says"),
    [
        ("sum(tokenext_request_total)", "no series tokenext_request_total"),
        ("rate(epp_adapter_requests_total{model='a'}[5m])", "epp_adapter_requests_total has no label model"),
        (
            "rate(tokenext_requests_total{reason=~'deadline|dead_line'}[5m]) / scalar(sum(nothing))",
            "tokenext_requests_total: reason is never ['dead_line']",
        ),
        (
            "sum(rate(llm_d_epp_request_ttft_seconds_bucket{streamed='true'}[5m]))",
            "llm_d_epp_request_ttft_seconds_bucket has no label streamed",
        ),
    ],
)
def test_a_mistake_would_be_found(expression, says):
    assert problems(expression)[0] == says


def test_what_is_no_promql_would_be_found():
    with pytest.raises(ValueError, match="unclosed"):
        problems("sum(rate(tokenext_requests_total[5m])")


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_an_alert_says_what_is_wrong_and_what_to_do(rule):
    assert rule["labels"]["severity"] in {"warning", "critical"}
    assert rule["annotations"]["summary"]
    assert rule["annotations"]["description"].endswith((".", ")."))


def test_what_an_operator_must_hear_of_has_an_alert():
    everything = " ".join(rule["expr"] for rule in RULES.values())
    for series in (
        "tokenext_parity_mismatch", "tokenext_breaker_open", "epp_adapter_fallbacks_total",
        "epp_adapter_ready_endpoints", "refused_overloaded", "epp_adapter_pick_duration_seconds_bucket",
    ):  # fmt: skip
        assert series in everything


def test_what_the_log_warns_of_is_what_the_alert_counts():
    (passed, _) = selectors(promql_parser.parse(RULES["TokenextPassesRequests"]["expr"]))
    reasons = {each.name: each.value for each in passed.matchers.matchers}["reason"]
    assert set(reasons.split("|")) == {reason.value for reason in TROUBLE}


def test_panels_do_not_overlap():
    taken = set()
    for panel in PANELS.values():
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not cells & taken, panel["title"]
        assert at["x"] + at["w"] <= 24
        taken |= cells
