"""Chat templates: jinja2, in the environment that transformers renders them in.

The environment was measured to give transformers' own text (facts/tokenization.md): an immutable sandbox,
trimmed blocks, loop controls, the `generation` tag, a plain `tojson`, `raise_exception` and `strftime_now`.
What a model server does to a request before its template runs is a Profile's business (profiles.py).
"""

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, Final

import jinja2
from jinja2 import nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from extproc.verdict import JsonValue
from tokenext.content_format import ContentFormat, content_format
from tokenext.declined import Declined, SkipReason

__all__ = ["ChatTemplate", "ChatTemplates", "TemplateSourceError"]

Now = Callable[[], datetime]

# Put behind the last message's text, to find where it ends in the prompt. The space tells whether the
# template strips content.
_END_MARK: Final = "\ue000tokenext:final\ue000 "


class TemplateSourceError(ValueError):
    """A template that jinja2 cannot compile; the message names the line."""


class _GenerationTag(Extension):
    """`{% generation %}...{% endgeneration %}` marks what the assistant wrote.

    In a prompt it is plain text with a scope of its own (transformers: AssistantTracker).
    """

    tags = {"generation"}  # noqa: RUF012  # jinja2 declares it so

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.Scope(body, lineno=line)


def _to_json(
    value: object,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """json.dumps as it is: jinja2's own filter escapes <, >, & and ' for HTML, which no model expects."""
    return json.dumps(
        value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )


def _raise_exception(message: str) -> None:
    raise jinja2.TemplateError(message)


class ChatTemplate:
    """One compiled template. Rendering is thread-safe: it keeps nothing between calls."""

    def __init__(self, source: str, *, now: Now) -> None:
        """Compile. `now` is what strftime_now shows. Raises TemplateSourceError."""
        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=[_GenerationTag, loopcontrols]
        )
        environment.filters["tojson"] = _to_json
        environment.globals["raise_exception"] = _raise_exception
        environment.globals["strftime_now"] = lambda layout: now().strftime(layout)
        try:
            tree = environment.parse(source)
            self._template = environment.from_string(tree)
        except jinja2.TemplateSyntaxError as error:
            raise TemplateSourceError(f"line {error.lineno}: {error.message}") from None
        self.source = source
        self.content_format: ContentFormat = content_format(tree)
        self.shows_date = any(name.name == "strftime_now" for name in tree.find_all(nodes.Name))

    def render(self, messages: Sequence[Mapping[str, JsonValue]], variables: Mapping[str, JsonValue]) -> str:
        """The prompt. Raises Declined where the template fails or refuses the messages."""
        arguments: dict[str, Any] = {**variables, "messages": messages}
        try:
            return self._template.render(arguments)
        # A template is a program of somebody else's: besides jinja2's errors it raises TypeError, ValueError,
        # KeyError, RecursionError and more, and each of them means just that it cannot render this.
        except Exception:  # noqa: BLE001  # as said
            raise Declined(SkipReason.RENDER_FAILED) from None

    def render_unfinished(
        self, messages: Sequence[Mapping[str, JsonValue]], variables: Mapping[str, JsonValue]
    ) -> str:
        """The prompt up to the end of the last message's text, for the model to go on from there.

        This is `continue_final_message` of transformers: what the template puts behind the text is cut off,
        and so is white space at its end where the template strips it. Raises Declined.
        """
        last = messages[-1]
        content = last.get("content")
        if not isinstance(content, str):
            raise Declined(SkipReason.BAD_REQUEST_SHAPE)
        marked = self.render([*messages[:-1], {**last, "content": content + _END_MARK}], variables)
        end = marked.rfind(_END_MARK.rstrip())
        if end < 0:
            raise Declined(SkipReason.RENDER_FAILED)
        stripped = not marked.startswith(_END_MARK, end)
        return marked[:end].rstrip() if stripped else marked[:end]


class ChatTemplates:
    """A model's templates by name: `default`, and sometimes `tool_use` for requests with tools."""

    def __init__(self, sources: Mapping[str, str], *, now: Now) -> None:
        """Compile all of them. Raises TemplateSourceError."""
        self._templates = {name: ChatTemplate(source, now=now) for name, source in sources.items()}

    def select(self, *, tools: bool) -> ChatTemplate | None:
        """The template for a request, or None where the model has none."""
        if tools and (special := self._templates.get("tool_use")):
            return special
        return self._templates.get("default")
