"""What is printed from memory is what the template would print; what nobody can vouch for is not kept."""

import json
import random
from datetime import UTC, datetime
from pathlib import Path

import jinja2
import pytest
import yaml
from jinja2 import nodes

from tokenext.chat_template import ChatTemplate
from tokenext.declined import Declined
from tokenext.loop_analysis import RECALL, remember_loops
from tokenext.loop_memory import LoopMemory
from tokenext.template_bounds import RenderBounds

ROOT = Path(__file__).parents[2]
TEMPLATES = {
    path.stem: path.read_text()
    for path in (
        *sorted((ROOT / "tests/parity/templates").glob("*.jinja")),
        ROOT / "loadtests/stack/chat_template.jinja",
    )
}
TEMPLATES |= yaml.safe_load((Path(__file__).parent / "golden" / "loops.yaml").read_text())
TEXTS = (
    "",
    "hi",
    " spaced \n",
    "<think>a</think>b",
    "<think>\nx\n</think>\n\ny",
    "<tool_response>z</tool_response>",
    "ü漢",
)
TOOL = {"type": "function", "function": {"name": "f", "description": "d", "parameters": {"type": "object"}}}
TOOLS = (None, [TOOL], [TOOL, {"type": "function", "function": {"name": "g", "parameters": {"x": 1.0}}}])


def template(source: str, bounds: RenderBounds | None = None) -> ChatTemplate:
    return ChatTemplate(source, now=lambda: datetime(2026, 1, 1, tzinfo=UTC), bounds=bounds)


def message(draw: random.Random) -> dict:
    role = draw.choice(("user", "assistant", "assistant", "user", "tool", "system"))
    made: dict = {"role": role, "content": draw.choice(TEXTS)}
    if role == "assistant" and draw.random() < 0.4:
        arguments = draw.choice(("{}", '{"a": 1}', {"a": draw.choice((1, 1.0, True, "1", None))}))
        call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": arguments}}
        made["tool_calls"] = [call] * draw.randint(1, 2)
    if role == "assistant" and draw.random() < 0.3:
        made["reasoning_content"] = draw.choice(TEXTS)
    if draw.random() < 0.1:
        made["content"] = [{"type": "text", "text": draw.choice(TEXTS)}]
    return made


def outcome(of: ChatTemplate, messages: list, variables: dict, memory: LoopMemory | None = None) -> str:
    try:
        return of.render(messages, variables, memory=memory)
    except Declined as declined:
        return f"declined: {declined.reason}"


def converse(of: ChatTemplate, draw: random.Random) -> int:
    """One conversation, with second thoughts. How many messages were printed from memory."""
    messages: list[dict] = []
    known: dict = {}
    recalled = 0
    variables: dict = {"tools": draw.choice(TOOLS), "add_generation_prompt": True, "bos_token": "<s>"}
    for _ in range(draw.randint(2, 6)):
        messages += [message(draw) for _ in range(draw.randint(1, 3))]
        if draw.random() < 0.15:
            variables = {**variables, "enable_thinking": draw.choice((True, False, 1))}
        if draw.random() < 0.1:
            variables = {**variables, "tools": draw.choice(TOOLS)}
        if draw.random() < 0.1:
            variables = {**variables, "content": "outer", "name": draw.choice(("n", 1, True)), "index": 3}
        if draw.random() < 0.1:
            messages[draw.randrange(len(messages))] = message(draw)
        if draw.random() < 0.05:
            del messages[len(messages) // 2 + 1 :]
        memory = LoopMemory(known)
        given = [each if draw.random() < 0.7 else json.loads(json.dumps(each)) for each in messages]
        prompt = outcome(of, given, variables, memory)
        assert prompt == outcome(of, list(messages), variables)
        recalled += memory.recalled
        if not prompt.startswith("declined"):
            known = {**known, **memory.kept}
    return recalled


@pytest.mark.parametrize("bounds", [None, RenderBounds()], ids=["trusted", "bounded"])
@pytest.mark.parametrize("name", TEMPLATES)
def test_a_prompt_from_memory_is_the_prompt(name, bounds):
    of, draw = template(TEMPLATES[name], bounds), random.Random(name)
    recalled = sum(converse(of, draw) for _ in range(60))
    assert recalled > 0 or name == "hermes_tools"  # its messages set a namespace, which is not followed


def turn_after(memory: LoopMemory | None, of: ChatTemplate, messages: list) -> tuple[str, LoopMemory]:
    memory = LoopMemory({} if memory is None else memory.kept)
    return of.render(messages, {}, memory=memory), memory


def test_only_what_is_new_in_a_prompt_counts_as_printed_anew():
    of = template("<s>{% for m in messages %}[{{ m.content }}]{% endfor %}</s>", RenderBounds())
    messages = [{"role": "user", "content": f"{each:03}" * 40} for each in range(20)]
    prompt, memory = turn_after(None, of, messages[:19])
    assert memory.printed_anew() == prompt
    prompt, memory = turn_after(memory, of, messages)
    anew = memory.printed_anew()
    assert anew.startswith("<s>")
    assert prompt.endswith(anew.removeprefix("<s>"))
    assert len(anew) < len(prompt) / 4


def test_a_place_in_memory_is_found_in_a_later_turn_too_and_words_of_clients_are_none():
    of = template("{% for m in messages %}{{ m.content.upper if m.shown else m.content }}\n{% endfor %}")
    said = [{"content": "<method at 0x7f>"}, {"content": "b"}, {"content": "c"}]
    prompt, memory = turn_after(None, of, said)
    assert turn_after(memory, of, [*said, {"content": "d"}])[0] == f"{prompt}d\n"
    with pytest.raises(Declined):
        turn_after(memory, of, [*said, {"content": "d", "shown": True}])


def remembered(source: str) -> int:
    environment = jinja2.Environment(extensions=["jinja2.ext.loopcontrols"])
    tree = remember_loops(environment.parse(source))
    return sum(each.name == RECALL for each in tree.find_all(nodes.Filter))


@pytest.mark.parametrize(
    "body",
    [
        "{{ messages | length }}",
        "{{ messages[-1].role }}",
        "{{ messages[loop.index0 + 2].role }}",
        "{{ messages[loop.index0 - 1].role }}",  # of the first message, that is the last
        "{% if m.x and messages[loop.index0 - 1].role %}{% endif %}",
        "{{ messages[loop.index0:] }}",
        "{{ loop.length }}",
        "{{ loop.revindex }}",
        "{{ loop.previtem }}",
        "{{ loop.changed(m.role) }}",
        "{{ loop }}",
        "{% set ns.seen = true %}",
        "{% set m = 1 %}",
        "{% set messages = [] %}",
        "{% break %}",
        "{{ strftime_now('%H') }}",
        "{{ helper(m) }}",
        "{{ m.content.pop() }}",
        "{{ [1, 2] | random }}",
        "{{ m.content.split(*m.x) }}",
        "{% for messages in m.x %}{% endfor %}",
        "{% for x in m.x %}{{ messages[loop.index0] }}{% endfor %}",
        "{% macro f() %}{% endmacro %}",
        "{% with x = 1 %}{% endwith %}",
        "{% set x %}text{% endset %}",
        "{% filter upper %}x{% endfilter %}",
    ],
)
def test_a_loop_that_may_look_ahead_or_leave_traces_is_rendered_whole(body):
    assert remembered(f"{{% for m in messages %}}{body}{{{{ m.content }}}}{{% endfor %}}") == 0
    assert remembered("{% for m in messages %}{{ m.content }}{% endfor %}") == 1


@pytest.mark.parametrize(
    "loop",
    [
        "{% for m in messages if m.role %}{{ m.content }}{% endfor %}",
        "{% for m in messages recursive %}{{ m.content }}{% endfor %}",
        "{% for m in messages %}{{ m.content }}{% else %}none{% endfor %}",
        "{% for m in messages[1:] %}{{ m.content }}{% endfor %}",
        "{% for a, b in messages %}{{ a }}{% endfor %}",
        "{% macro f() %}{% for m in messages %}{{ m.content }}{% endfor %}{% endmacro %}{{ f() }}",
        "{% set x %}{% for m in messages %}{{ m.content }}{% endfor %}{% endset %}{{ x }}",
        "{% for x in tools_of(y) %}{% for m in messages %}{{ m.content }}{% endfor %}{% endfor %}",
        "{% set raise_exception = x %}{% for m in messages %}{{ m.content }}{% endfor %}",
        "{% set __remembered_text_0 = 1 %}{% for m in messages %}{{ m.content }}{% endfor %}",
    ],
)
def test_only_plain_loops_that_print_to_the_prompt_are_looked_at(loop):
    assert remembered(loop) == 0


def test_a_variable_that_cannot_be_compared_means_rendering_anew():
    of = template(
        "{% set f = namespace %}{% for m in messages %}{{ f is defined }}{{ m.content }}{% endfor %}"
    )
    messages = [{"role": "user", "content": str(each)} for each in range(5)]
    first = LoopMemory({})
    assert of.render(messages, {}, memory=first) == "True0True1True2True3True4"
    second = LoopMemory(first.kept)
    assert of.render(messages, {}, memory=second) == "True0True1True2True3True4"
    assert second.recalled == 0


def test_a_list_that_only_looks_alike_is_not_the_same():
    of = template("{% for m in messages %}{{ m.x }} {% endfor %}")
    for old, new in ((1, True), (1, 1.0), (0, False), ("1", 1), ({"a": 1, "b": 2}, {"b": 2, "a": 1})):
        memory = LoopMemory({})
        of.render([{"x": old}, {"x": 0}, {"x": 0}, {"x": 0}], {}, memory=memory)
        again = LoopMemory(memory.kept)
        prompt = of.render([{"x": new}, {"x": 0}, {"x": 0}, {"x": 0}], {}, memory=again)
        assert prompt.startswith(f"{new} ")
        assert again.recalled == 0
