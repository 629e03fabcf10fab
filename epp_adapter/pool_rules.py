"""What an InferencePool's objects say of requests: priorities by objective, and which model is asked for.

Semantics of llm-d-router's InferenceObjective and InferenceModelRewrite (apix/v1alpha2): a missing priority
is 0 and a negative one may be shed; of the rewrite rules that match, an exact one wins over a generic one,
then the older object over the younger, then the earlier rule.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

__all__ = [
    "NO_RULES",
    "FixedRules",
    "ModelRewrite",
    "PoolRules",
    "RewriteRule",
    "RewriteTarget",
    "RuleSource",
]


@dataclass(frozen=True, slots=True)
class RewriteTarget:
    """`weight` is its share among the targets of a rule; 0: never."""

    model: str
    weight: int = 1


@dataclass(frozen=True, slots=True)
class RewriteRule:
    """`models` are the names that match exactly; none: every model matches (a generic rule)."""

    models: frozenset[str]
    targets: tuple[RewriteTarget, ...]


@dataclass(frozen=True, slots=True)
class ModelRewrite:
    """`created` orders rewrites (an RFC 3339 time sorts as text), and `name` decides where it is the same."""

    name: str
    rules: tuple[RewriteRule, ...]
    created: str = ""


@dataclass(frozen=True, slots=True)
class PoolRules:
    """`rewrites` in any order."""

    objectives: Mapping[str, int] = field(default_factory=dict)
    rewrites: tuple[ModelRewrite, ...] = ()

    def priority(self, objective: str) -> int:
        return self.objectives.get(objective, 0)

    def target(self, model: str, random: Callable[[], float]) -> str | None:
        """The model to ask for instead; None where no rule matches. `random` is from [0, 1)."""
        rule = self._rule(model)
        return None if rule is None else _weighted(rule.targets, random)

    def _rule(self, model: str) -> RewriteRule | None:
        generic: RewriteRule | None = None
        for rewrite in sorted(self.rewrites, key=lambda each: (each.created, each.name)):
            for rule in rewrite.rules:
                if model in rule.models:
                    return rule
                if generic is None and not rule.models:
                    generic = rule
        return generic


def _weighted(targets: Sequence[RewriteTarget], random: Callable[[], float]) -> str | None:
    point = random() * sum(target.weight for target in targets)
    for target in targets:
        point -= target.weight
        if point < 0:
            return target.model
    return None


class RuleSource(Protocol):
    """Who knows the rules. `rules` is cheap and never fails."""

    def rules(self) -> PoolRules: ...


class FixedRules:
    """Rules that change only by `replace`: the fake of the seam above, and rules from the settings."""

    def __init__(self, rules: PoolRules | None = None) -> None:
        self._rules = rules or PoolRules()

    def rules(self) -> PoolRules:
        return self._rules

    def replace(self, rules: PoolRules) -> None:
        self._rules = rules


NO_RULES: Final[RuleSource] = FixedRules()
