"""Short cuts in compiled templates change no outcome: what jinja2 itself would generate is the reference."""

from datetime import UTC, datetime
from pathlib import Path

import jinja2
import pytest
import yaml
from jinja2.compiler import CodeGenerator

from tokenext.template_bounds import Budget, RenderBounds
from tokenext.template_environment import template_environment
from tokenext.template_filters import BUDGET
from tokenext.template_namespace import TemplateNamespace
from tokenext.template_sandbox import BoundedEnvironment

VARIABLES = {
    "message": {"role": "user", "content": "hi", "none": None, "empty": "", "items": "own", "_x": "private"},
    "messages": [{"role": "user"}, {"role": "assistant", "tool_calls": [1, 2]}, {"content": None}],
    "text": "text",
    "number": 7,
    "loop": {"index": "not a loop"},
}
SNIPPETS = yaml.safe_load((Path(__file__).parent / "golden" / "short_cuts.yaml").read_text())


@pytest.fixture(scope="module")
def now():
    return lambda: datetime(2026, 1, 1, tzinfo=UTC)


def outcome(environment: jinja2.Environment, source: str) -> str:
    """The text, or the kind of error. A sandbox's untouched `<class ...>` never shows."""
    variables = {**VARIABLES, BUDGET: Budget(RenderBounds())}
    tree = environment.parse(source)
    if isinstance(environment, BoundedEnvironment):
        tree = environment.bounded(tree)
    try:
        return environment.from_string(tree).render(variables)
    except Exception as error:  # noqa: BLE001  # its kind is what is compared
        return f"{type(error).__name__}"


@pytest.mark.parametrize("bounds", [None, RenderBounds()], ids=["trusted", "bounded"])
@pytest.mark.parametrize("source", SNIPPETS)
def test_a_short_cut_finds_what_jinja2_finds(source, bounds, now):
    ours, reference = (template_environment(now=now, bounds=bounds) for _ in range(2))
    assert ours.code_generator_class is not CodeGenerator
    reference.code_generator_class = CodeGenerator
    assert outcome(ours, source) == outcome(reference, source)


@pytest.mark.parametrize("source", SNIPPETS)
def test_the_sandbox_of_jinja2_itself_says_the_same(source, now):
    ours = template_environment(now=now, bounds=RenderBounds())
    reference = jinja2.sandbox.ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    reference.globals["namespace"] = TemplateNamespace
    assert outcome(ours, source) == outcome(reference, source)


def test_the_common_look_ups_pass_the_environment_by(now, monkeypatch):
    environment = template_environment(now=now, bounds=RenderBounds())
    asked = []
    monkeypatch.setattr(environment, "getattr", lambda _, name: asked.append(name))
    source = (
        "{% for message in messages %}{{ message.role }}{{ loop.first }}{{ message.gone is defined }}"
        "{% if message.tool_calls %}{% endif %}{% endfor %}"
    )
    messages = [{"role": "user"}] * 3
    template = environment.from_string(environment.bounded(environment.parse(source)))
    assert template.render({"messages": messages, BUDGET: Budget(RenderBounds())}).startswith("userTrueFalse")
    assert asked == []
