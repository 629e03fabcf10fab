import pytest

from epp_adapter.pool_rules import FixedRules, ModelRewrite, PoolRules, RewriteRule, RewriteTarget


def rule(*models, to, weight=1):
    return RewriteRule(frozenset(models), (RewriteTarget(to, weight),))


def target_of(model, *rewrites):
    return PoolRules(rewrites=rewrites).target(model, lambda: 0.0)


def test_a_priority_that_nobody_set_is_0():
    rules = PoolRules({"batch": -1, "urgent": 5})
    assert [rules.priority(name) for name in ("batch", "urgent", "unheard-of", "")] == [-1, 5, 0, 0]


def test_a_model_that_no_rule_names_stays():
    assert target_of("b", ModelRewrite("r", (rule("a", to="x"),))) is None
    assert target_of("b") is None


def test_exact_wins_over_generic_though_that_is_older_and_first():
    generic = ModelRewrite("g", (rule(to="any"),), created="2026-01-01T00:00:00Z")
    exact = ModelRewrite("e", (rule("a", "b", to="x"),), created="2026-02-01T00:00:00Z")
    assert target_of("b", generic, exact) == "x"
    assert target_of("c", generic, exact) == "any"


def test_among_equals_the_older_wins_then_the_name_then_the_earlier_rule():
    young = ModelRewrite("a", (rule("m", to="young"),), created="2026-02-01T00:00:00Z")
    old = ModelRewrite("z", (rule("m", to="first"), rule("m", to="second")), created="2026-01-01T00:00:00Z")
    twin = ModelRewrite("b", (rule("m", to="twin"),), created="2026-01-01T00:00:00Z")
    assert target_of("m", young, old) == "first"
    assert target_of("m", young, old, twin) == "twin"


@pytest.mark.parametrize(
    ("point", "chosen"), [(0.0, "a"), (0.2499, "a"), (0.25, "b"), (0.9999, "b"), (1 - 2**-53, "b")]
)
def test_targets_are_chosen_by_their_share(point, chosen):
    targets = (RewriteTarget("a", 10), RewriteTarget("never", 0), RewriteTarget("b", 30))
    rules = PoolRules(rewrites=(ModelRewrite("r", (RewriteRule(frozenset(), targets),)),))
    assert rules.target("m", lambda: point) == chosen


def test_targets_that_weigh_nothing_rewrite_nothing():
    assert target_of("m", ModelRewrite("r", (rule("m", to="x", weight=0),))) is None


def test_replaced_rules_count_from_then_on():
    source = FixedRules()
    assert source.rules() == PoolRules()
    source.replace(PoolRules({"a": 1}))
    assert source.rules().priority("a") == 1
