"""A loop ends once its flag is down, where only the flag's conditions could tell; all others run through."""

import itertools
import random

import jinja2
import pytest
from jinja2 import nodes

from tokenext.chat_template import ChatTemplate
from tokenext.declined import Declined
from tokenext.settled_loops import end_settled_loops
from tokenext.template_bounds import RenderBounds
from tokenext.template_environment import template_environment

START = "{% set ns = namespace(up=true, other=true, found=-1, count=0) %}"
END = "{{ ns.up }} {{ ns.other }} {{ ns.found }} {{ ns.count }}"
INDEX = "{% set index = (messages|length - 1) - loop.index0 %}"
DOWN = "{% set ns.up = false %}"
ASKED = "{% if ns.up and message.role == 'user' %}"
FI = "{% endif %}"


def loop(body, over="messages[::-1]"):
    return f"{START}{{% for message in {over} %}}{body}{{% endfor %}}{END}"


SETTLED = {
    "a search from the end": loop(
        INDEX + ASKED + DOWN + "{% set ns.found = index %}" + FI
    ),
    "a search that prints": loop(ASKED + DOWN + "{{ message.content }}{% endif %}"),
    "two conditions of one flag": loop(
        ASKED + DOWN + FI + "{% if ns.up %}{% set ns.count = ns.count + 1 %}{% endif %}"
    ),
    "from the beginning": loop(ASKED + DOWN + FI, "messages"),
    "a flag that is down at once": loop("{% if ns.gone and x %}{{ y }}{% endif %}"),
    "a flag that goes up again before the end of its body": loop(
        ASKED + DOWN + "{% set ns.up = true %}{% endif %}"
    ),
}  # fmt: skip
LEFT = {
    "it prints": loop("." + ASKED + DOWN + FI),
    "another branch": loop(ASKED + DOWN + "{% else %}-{% endif %}"),
    "a branch for others": loop("{% if ns.up and x %}" + DOWN + "{% elif 1 %}u{% endif %}"),
    "the flag is asked last": loop("{% if message.role == 'user' and ns.up %}" + DOWN + FI),
    "the flag is one of two": loop("{% if ns.up or message.role == 'user' %}" + DOWN + FI),
    "the flag is denied": loop("{% if not ns.up and message.role == 'user' %}u{% endif %}"),
    "a second flag": loop(
        ASKED + DOWN + "{% endif %}{% if ns.other %}o{% endif %}"
    ),
    "it counts in the namespace": loop("{% set ns.count = ns.count + 1 %}" + ASKED + DOWN + FI),
    "it may fail later": loop("{% set x = 1 // loop.revindex0 %}{% if ns.up %}" + DOWN + FI),
    "it reads the message": loop("{% set x = message.content + 1 %}{% if ns.up %}" + DOWN + FI),
    "it counts what it sets": loop(
        "{% set x = message|length %}{% set message = 1 %}{% if ns.up %}" + DOWN + FI
    ),
    "another variable of the namespace's name": loop(
        ASKED + "{% set ns = message %}" + FI
    ),
    "something for no messages": loop("{% if ns.up %}x" + FI + "{% else %}-", "messages"),
    "some messages only": loop("{% if ns.up %}x" + FI, "messages if message.role == 'user'"),
    "nothing": loop(""),
}  # fmt: skip
ROLES = ("user", "assistant", "tool", "system")


def breaks(source):
    tree = end_settled_loops(template_environment(now=lambda: None, bounds=None).parse(source))
    return len(list(tree.find_all(nodes.Break)))


@pytest.mark.parametrize("source", SETTLED.values(), ids=SETTLED)
def test_what_nothing_can_tell_is_cut_short(source):
    assert breaks(source) == 1


@pytest.mark.parametrize("source", LEFT.values(), ids=LEFT)
def test_what_something_could_tell_runs_through(source):
    assert breaks(source) == 0


def outcome(render):
    try:
        return render()
    except (jinja2.TemplateError, ArithmeticError, TypeError, Declined):
        return "refused"


@pytest.mark.parametrize("source", (SETTLED | LEFT).values(), ids=SETTLED | LEFT)
def test_the_prompt_is_the_one_of_plain_jinja2(source):
    plain = jinja2.Environment(autoescape=False).from_string(source)
    template = ChatTemplate(source, now=lambda: None)
    words = random.Random(1)
    for roles in itertools.chain.from_iterable(itertools.product(ROLES, repeat=size) for size in range(4)):
        messages = [{"role": role, "content": words.choice(("a", "b"))} for role in roles]
        ours = outcome(lambda messages=messages: template.render(messages, {}))
        theirs = outcome(lambda messages=messages: plain.render(messages=messages))
        assert ours == theirs, roles


def test_a_long_conversation_is_not_gone_through():
    messages = [{"role": "user", "content": "a"}] * 10_000
    few_steps = RenderBounds(max_steps=1_000)
    template = ChatTemplate(SETTLED["a search from the end"], now=lambda: None, bounds=few_steps)
    assert template.render(messages, {}) == "False True 9999 0"
    longer = ChatTemplate(LEFT["it prints"], now=lambda: None, bounds=few_steps)
    with pytest.raises(Declined):
        longer.render(messages, {})
