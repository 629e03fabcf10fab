from datetime import UTC, datetime

import pytest

from tokenext.chat_template import ChatTemplate
from tokenext.content_format import ContentFormat


def read_off(source: str) -> ContentFormat:
    return ChatTemplate(source, now=lambda: datetime.now(UTC)).content_format


EACH = "{% for m in messages %}"
END = "{% endfor %}"


@pytest.mark.parametrize(
    "source",
    [
        EACH + "{{ m.content }}" + END,
        EACH + "{{ m['content'] | trim }}" + END,
        EACH + "{% for t in m.tool_calls %}{{ t }}{% endfor %}" + END,
        EACH + "{% for line in m.content.split('a') %}{{ line }}{% endfor %}" + END,
        EACH + "{% for p in other.content %}{{ p }}{% endfor %}" + END,
        "{% set content = messages %}{{ content }}",
        "no messages at all",
    ],
)
def test_a_template_that_never_loops_over_content_takes_text(source):
    assert read_off(source) is ContentFormat.STRING


@pytest.mark.parametrize(
    "source",
    [
        EACH + "{% for p in m.content %}{{ p }}{% endfor %}" + END,
        EACH + "{% for p in m['content'] %}{{ p }}{% endfor %}" + END,
        EACH + "{% for p in m.content[1:] %}{{ p }}{% endfor %}" + END,
        EACH + "{% set c = m.content %}{% for p in c | default([]) %}{{ p }}{% endfor %}" + END,
        EACH + "{% set c = m.content if m.content is not string else [] %}{% for p in c %}{% endfor %}" + END,
        EACH + "{% for p in m.content or [] %}{{ p }}{% endfor %}" + END,
        "{% for i, m in messages | items %}{% for p in m.content %}{{ p }}{% endfor %}{% endfor %}",
        "{% set rest = messages[1:] %}{% for m in rest %}{% for p in m.content %}{% endfor %}{% endfor %}",
        "{% for p in messages[0].content %}{{ p }}{% endfor %}",
        "{% set m = messages[0] %}{% for p in m.content %}{{ p }}{% endfor %}",
        "{% macro show(c) %}{% for p in c %}{{ p }}{% endfor %}{% endmacro %}"
        + EACH
        + "{{ show(m.content) }}"
        + END,
    ],
)
def test_a_template_that_loops_over_content_takes_parts(source):
    assert read_off(source) is ContentFormat.PARTS
