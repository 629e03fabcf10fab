"""Whatever an untrusted template tries, a render ends soon and stays small."""

import resource
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest
import yaml

from tokenext.chat_template import ChatTemplate, TemplateSourceError
from tokenext.declined import Declined, SkipReason
from tokenext.template_bounds import RenderBounds

BOUNDS = RenderBounds(max_chars=200_000, max_steps=200_000, seconds=0.5, clock=time.monotonic)
USER = {"role": "user", "content": "hi"}


def template(source: str, bounds: RenderBounds | None = BOUNDS) -> ChatTemplate:
    return ChatTemplate(source, now=lambda: datetime.now(UTC), bounds=bounds)


def outcome(source: str, *messages: dict, bounds: RenderBounds = BOUNDS, **variables: object) -> SkipReason:
    with pytest.raises(Declined) as caught:
        template(source, bounds).render(messages or (USER,), variables)
    return caught.value.reason


def rendered(source: str, *messages: dict, **variables: object) -> str:
    return template(source).render(messages or (USER,), variables)


CASES = yaml.safe_load((Path(__file__).parent / "golden" / "templates.yaml").read_text())
LOOPS, SIZES, SAME = CASES["loops"], CASES["sizes"], CASES["same"]
BIG = "a" * 1000
DEEP = 1
for _ in range(200):
    DEEP = [DEEP, 1]


@pytest.mark.parametrize("source", LOOPS.values(), ids=LOOPS)
def test_a_template_that_does_not_end_is_stopped(source):
    began = time.monotonic()
    assert outcome(source, big=BIG) in {SkipReason.RENDER_LIMIT, SkipReason.RENDER_DEADLINE}
    assert time.monotonic() - began < 5


@pytest.mark.parametrize("source", SIZES.values(), ids=SIZES)
def test_a_template_that_makes_something_huge_is_stopped_first(source):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began = time.monotonic()
    assert outcome(source, big=BIG, deep=DEEP) is SkipReason.RENDER_LIMIT
    assert time.monotonic() - began < 2
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 * 1024  # in KiB


def test_the_deadline_counts_by_the_clock_that_is_given():
    ticks = iter(range(10**9))
    bounds = RenderBounds(seconds=5, clock=lambda: float(next(ticks)))
    assert outcome("{% for i in range(99999) %}{% endfor %}", bounds=bounds) is SkipReason.RENDER_DEADLINE
    assert template("{% for i in range(9) %}{% endfor %}", bounds).render((USER,), {}) == ""


def test_what_a_namespace_holds_is_not_printed():
    assert outcome("{% set n = namespace(a=1) %}{{ n }}") is SkipReason.RENDER_FAILED


def test_a_template_nested_too_deeply_is_a_source_error():
    for source in (
        "{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}",
        "{% for a in x %}" * 40 + "{% endfor %}" * 40,
    ):
        with pytest.raises(TemplateSourceError):
            template(source)


@pytest.mark.parametrize("source", SAME)
def test_a_template_within_its_bounds_gives_the_text_of_plain_jinja(source):
    messages = [
        {"role": "system", "content": "s"},
        {"role": "user", "content": "x <y> é"},
        {"role": "user", "content": "z"},
    ]
    variables = {
        "d": {"z": 1, "a": [1.0, None, "é\n<"], "items": 3},
        "w": "word one",
        "n": 5,
        "tree": [{"n": 1, "c": [{"n": 2}, {"n": 3}]}, {"n": 4}],
    }
    try:
        trusted = template(source, None)
    except TemplateSourceError:
        with pytest.raises(TemplateSourceError):
            template(source)
        return
    expected = trusted.render(messages, variables)
    assert template(source).render(messages, variables) == expected
    assert "<generator" not in expected
