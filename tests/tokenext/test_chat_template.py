import threading
from datetime import UTC, datetime

import pytest

from tokenext.chat_template import ChatTemplate, ChatTemplates, TemplateSourceError
from tokenext.declined import Declined, SkipReason

NOON = datetime(2026, 7, 1, 12, 0, tzinfo=UTC)
USER = {"role": "user", "content": "hi"}


def template(source: str) -> ChatTemplate:
    return ChatTemplate(source, now=lambda: NOON)


def render(source: str, *messages: dict, **variables: object) -> str:
    return template(source).render(messages or (USER,), variables)


def decline(source: str, *messages: dict, **variables: object) -> SkipReason:
    with pytest.raises(Declined) as caught:
        render(source, *messages, **variables)
    return caught.value.reason


def test_tojson_escapes_nothing_for_html_and_keeps_the_order_of_keys():
    assert (
        render("{{ v | tojson }}", v={"b": "<é&'>", "a": [1.0, None]})
        == """{"b": "<é&'>", "a": [1.0, null]}"""
    )


def test_tojson_takes_the_arguments_of_json_dumps():
    assert render("{{ v | tojson(indent=2) }}", v={"a": 1}) == '{\n  "a": 1\n}'
    assert render("{{ v | tojson(separators=(',', ':')) }}", v={"a": 1, "b": 2}) == '{"a":1,"b":2}'


@pytest.mark.parametrize(
    "shown", ["{{ d.items }}", "{{ [d.get] }}", "{{ [1] | map('string') }}", "{{ 'x' ~ d.get }}"]
)
def test_a_place_in_memory_is_never_printed_since_the_engine_would_print_another(shown):
    assert decline(shown, d={"a": 1}) is SkipReason.RENDER_FAILED
    said = {"role": "user", "content": "What is <function f at 0x7f00>?"}
    assert decline("{{ messages[0].content }}" + shown, said, d={"a": 1}) is SkipReason.RENDER_FAILED


def test_a_client_may_say_where_things_are_in_memory():
    said = {"role": "user", "content": "What is <function f at 0x7f00>?"}
    source = "{{ messages[0].content }}{{ d | tojson }}{{ d.items is defined }}"
    shown = 'What is <function f at 0x7f00>?{"at 0x1": [" at 0x2"]}True'
    assert render(source, said, d={"at 0x1": [" at 0x2"]}) == shown


def test_blocks_take_their_line_with_them():
    assert render("a\n  {% if true %}\nb\n  {% endif %}\nc") == "a\nb\nc"


def test_loop_controls_work():
    assert render("{% for i in range(9) %}{% if i == 1 %}{% continue %}{% endif %}{{ i }}"
                  "{% if i == 3 %}{% break %}{% endif %}{% endfor %}") == "023"  # fmt: skip


def test_the_generation_tag_is_plain_text_with_its_own_scope():
    source = "{% set a = 1 %}{% generation %}{% set a = 2 %}{{ a }}{% endgeneration %}{{ a }}"
    assert render(source) == "21"


def test_strftime_now_shows_the_clock_it_was_given():
    assert render("{{ strftime_now('%d %b %Y') }}") == "01 Jul 2026"


def test_a_template_that_refuses_the_messages_is_a_decline():
    assert decline("{{ raise_exception('roles must alternate') }}") is SkipReason.RENDER_FAILED


@pytest.mark.parametrize(
    "source",
    [
        "{{ 1 / 0 }}",
        "{{ missing.attribute }}",
        "{{ messages[0].content + 3 }}",
        "{{ ''.__class__.__mro__ }}",
        "{{ messages.append(1) }}",
        "{{ range(10**9) | list }}",
        "{% macro again() %}{{ again() }}{% endmacro %}{{ again() }}",
        "{{ v | nofilter if false else (1).real.x.y }}",
    ],
)
def test_a_template_that_fails_or_reaches_out_is_a_decline(source):
    try:
        compiled = template(source)
    except TemplateSourceError:
        return
    with pytest.raises(Declined):
        compiled.render((USER,), {})


def test_a_template_that_does_not_compile_names_its_line():
    with pytest.raises(TemplateSourceError, match="line 2: "):
        template("a\n{% if %}")


def test_messages_cannot_be_replaced_by_a_variable():
    assert render("{{ messages[0].content }}", messages=[{"content": "other"}]) == "hi"


class TestUnfinishedMessages:
    SOURCE = "{% for m in messages %}<{{ m.role }}>{{ m.content }}</>\n{% endfor %}"
    STRIPPING = "{% for m in messages %}<{{ m.role }}>{{ m.content | trim }}</>\n{% endfor %}"

    def end(self, source: str, *messages: dict) -> str:
        return template(source).render_unfinished(messages, {})

    def test_the_prompt_ends_with_the_last_messages_text(self):
        assert (
            self.end(self.SOURCE, USER, {"role": "assistant", "content": "so "})
            == "<user>hi</>\n<assistant>so "
        )

    def test_white_space_goes_where_the_template_strips_it(self):
        assert self.end(self.STRIPPING, {"role": "assistant", "content": "so "}) == "<assistant>so"

    def test_text_that_stands_in_the_prompt_twice_ends_at_the_last(self):
        messages = ({"role": "user", "content": "so"}, {"role": "assistant", "content": "so"})
        assert self.end(self.SOURCE, *messages) == "<user>so</>\n<assistant>so"

    def test_a_message_without_text_cannot_be_continued(self):
        with pytest.raises(Declined):
            self.end(self.SOURCE, {"role": "assistant", "content": None})

    def test_a_template_that_drops_the_last_message_is_a_decline(self):
        with pytest.raises(Declined):
            self.end("{{ messages[0].content }}", USER, {"role": "assistant", "content": "so"})


def test_rendering_from_many_threads_mixes_nothing_up():
    compiled = template("{% for m in messages %}{{ m.content }}{% endfor %}")
    results: dict[int, set[str]] = {}

    def work(number: int) -> None:
        messages = [{"role": "user", "content": str(number)}] * 50
        results[number] = {compiled.render(messages, {}) for _ in range(50)}

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == {number: {str(number) * 50} for number in range(4)}


class TestNamedTemplates:
    def test_requests_with_tools_take_the_tool_template_where_there_is_one(self):
        templates = ChatTemplates({"default": "d", "tool_use": "t"}, now=lambda: NOON)
        assert templates.select(tools=True).source == "t"
        assert templates.select(tools=False).source == "d"

    def test_one_template_serves_all_requests(self):
        templates = ChatTemplates({"default": "d"}, now=lambda: NOON)
        assert templates.select(tools=True).source == "d"

    def test_a_model_may_have_none(self):
        assert ChatTemplates({}, now=lambda: NOON).select(tools=False) is None
