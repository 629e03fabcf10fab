"""Where jinja2 and minijinja were seen to differ (tests/parity/RULES.md, 7), a prompt is not exact.

`make parity MODELS=dialect` compares them at a real Dynamo frontend, over every kind of value.
"""

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
import yaml

from tokenext.chat_template import ChatTemplate, ChatTemplates, TemplateSourceError
from tokenext.declined import Declined
from tokenext.dynamo_profile import DynamoProfile
from tokenext.minijinja_doubts import Doubts
from tokenext.openai import Api, ChatRequest, parse, read_body
from tokenext.profiles import InexactReason
from tokenext.template_bounds import RenderBounds

VALUES = {
    "d": {"a": 1, "items": 2},
    "l": ["x", 1.5],
    "f": 1.5,
    "g": 1e-7,
    "s": "it's é",
    "w": "plain",
    "n": 5,
    "t": True,
    "o": None,
}
# A piece of template language a line, with the letter of its rule.
DOUBTFUL = r"""
P1 {{ l }}
P1 {{ d }}
P1 {{ (1, 2) }}
P1 {{ range(3) }}
P1 {{ d.keys() }}
P1 {% set x = d %}{{ x }}
P1 {% macro m(x) %}{{ x }}{% endmacro %}{{ m(l) }}
P1 {{ 'a' ~ l }}
P1 {{ l | string }}
P1 {{ l | trim }}
P1 {{ l | safe }}
P1 {{ w | replace('p', d) }}
P1 {{ [d] | join }}
P1 {{ [d] | map('string') | list | tojson }}
P2 {{ 'a' ~ g }}
P2 {{ [g] | join('-') }}
P2 {{ g | upper }}
P3 {{ d.items }}
P3 {{ d['keys'] }}
P3 {% set k = 'keys' %}{{ d[k] is defined }}
P3 {{ d.values is defined }}
P3 {{ w.title is defined }}
P3 {{ n.real is defined }}
P3 {{ [d] | map(attribute='items') | list | length }}
P4 {{ s.find('é') }}
P4 {{ f | round }}
P4 {{ s | title }}
P4 {{ s.title() }}
P4 {{ s | capitalize }}
P4 {{ s | escape }}
P4 {{ -7 % 3 }}
P4 {{ 7 // -2 }}
P4 {{ f % 2 }}
P4 {{ '%s' % w }}
P4 {{ '{}'.format(w) }}
P4 {{ ''.isdigit() }}
P4 {{ d | tojson(sort_keys=true) }}
P4 {{ d | tojson(true) }}
P4 {{ d | tojson(separators=(',', ':')) }}
P4 {{ w is sequence }}
P4 {{ t is number }}
P4 {{ 'a b' is lower }}
P4 {{ d | attr('a') }}
P4 {{ t > 0 }}
P4 {{ t in {1: 2} }}
P4 {{ {t: 1}[1] }}
P4 {{ [t, 1] | unique | list | tojson }}
P4 {{ ['a', 'B'] | min }}
P4 {{ w | urlencode }}
P4 {{ w[1.0] is defined }}
P6 {{ '\U00010d50' | lower }}
P7 {{ debug is defined }}
P7 {{ cycler is defined }}
P8 {{ ' a\n' | indent }}
P8 {{ d | reverse | list | tojson }}
P8 {{ o is iterable }}
P8 {% for c in w %}{{ loop.last }}{% endfor %}
P8 {{ w[2:0:-1] }}
P8 {% autoescape true %}{{ w }}{% endautoescape %}
?? {{ w | center(9) }}
?? {{ w is callable }}
?? {{ w.swapcase() }}
""".strip().splitlines()
CLEAR = r"""
{{ w }}
{{ s }}
{{ n }}
{{ f }}
{{ g }}
{{ t }}
{{ o }}
{{ missing }}
{{ d | tojson(indent=2) }}
{{ d | tojson(ensure_ascii=False) }}
{{ d.a }}
{{ d['items'] }}
{{ d.get('a') }}
{% for k, v in d.items() %}{{ k }}{{ v }}{% endfor %}
{{ 'a' ~ w ~ n ~ f }}
{{ ['x', 'y'] | join(', ') }}
{{ w + '!' }}
{{ n % 2 }}
{{ n // 2 }}
{{ w | title }}
{{ w | escape }}
{{ w.find('n') }}
{{ w.isdigit() }}
{{ l is sequence }}
{{ l is iterable }}
{{ n is number }}
{{ s | trim | upper }}
{{ s.split("'")[-1].strip('\n') }}
{{ l[::-1] | tojson }}
{{ l[1:] | tojson }}
{{ l | map('tojson') | join(',') }}
{{ [d] | selectattr('a', 'equalto', 1) | list | length }}
{{ 'a' in d and n > 3 and w in ['plain'] }}
{{ namespace(x=l).x | length }}
{% if false %}{{ l }}{% endif %}
{% set x %}{{ w }}{% endset %}{{ x | trim }}
{% macro m(x) %}{{ x }}{% endmacro %}{{ m(w) }}
{% for x in l %}{{ loop.index0 }}{{ loop.last }}{{ x }}{% endfor %}
""".strip().splitlines()


def doubted(source: str, bounds: RenderBounds | None) -> bool:
    template = ChatTemplate(source, now=lambda: datetime.now(UTC), bounds=bounds, watched=True)
    doubts = Doubts()
    template.render([], VALUES, doubts)
    return doubts.found


METHODS_PRINTED = ("P3 {{ d.items }}", "P3 {{ d['keys'] }}")


@pytest.mark.parametrize("bounds", [RenderBounds(), None], ids=["bounded", "trusted"])
@pytest.mark.parametrize("rule", DOUBTFUL)
def test_what_minijinja_gives_in_other_words_is_noted(rule, bounds):
    source = rule.partition(" ")[2]
    if rule in METHODS_PRINTED:  # by their place in memory: that is refused, whoever renders
        with pytest.raises(Declined):
            doubted(source, bounds)
    else:
        assert doubted(source, bounds)


@pytest.mark.parametrize("bounds", [RenderBounds(), None], ids=["bounded", "trusted"])
@pytest.mark.parametrize("source", CLEAR)
def test_what_both_give_alike_is_not(source, bounds):
    assert not doubted(source, bounds)


SAME = yaml.safe_load((Path(__file__).parent / "golden" / "templates.yaml").read_text())["same"]


PIECES = [rule.partition(" ")[2] for rule in DOUBTFUL]


@pytest.mark.parametrize("source", [*PIECES, *CLEAR, *SAME])
def test_watching_changes_no_text(source):
    try:
        templates = [
            ChatTemplate(source, now=lambda: datetime.now(UTC), watched=watched) for watched in (False, True)
        ]
    except TemplateSourceError:
        return  # one of the cases is no template, on purpose
    messages = [
        {"role": "system", "content": "s"},
        {"role": "user", "content": "u"},
        {"role": "user", "content": "v"},
    ]
    texts = []
    for each in templates:
        try:
            texts.append(each.render(messages, {**VALUES, "tree": [], "z": 1}))
        except Declined:
            texts.append(None)
    assert texts[0] == texts[1]


def ask(source: str, **variables: object) -> InexactReason | None:
    templates = ChatTemplates({"default": source}, now=lambda: datetime.now(UTC))
    profile = DynamoProfile(templates, special_tokens={}, template_kwargs={})
    body = {"model": "m", "messages": [{"role": "user", "content": "hi"}], "chat_template_kwargs": variables}
    request = parse(Api.CHAT, read_body(json.dumps(body).encode()))
    assert isinstance(request, ChatRequest)
    return profile.chat(request).inexact


def test_a_prompt_of_dynamos_is_exact_only_where_nothing_was_noted():
    source = "{% for m in messages %}{{ m.content }}{% endfor %}{% if shown %}{{ shown }}{% endif %}"
    assert ask(source) is None
    assert ask(source, shown="text") is None
    assert ask(source, shown=["a list"]) is InexactReason.TEMPLATE_DIALECT


def test_carriage_returns_in_a_template_are_never_exact():
    assert ask("a\r\n{{ messages[0].content }}") is InexactReason.TEMPLATE_DIALECT
