"""The environments that chat templates run in: transformers' own, bounded for templates nobody vouches for.

What a template sees was measured to give transformers' text (facts/tokenization.md): trimmed blocks, loop
controls, the `generation` tag, a plain `tojson`, `raise_exception`, `strftime_now`, and a `namespace` that
takes no private names. An operator's trusted template runs without sandbox and bounds, with the same text.
"""

from collections.abc import Callable
from datetime import datetime
from typing import Any

import jinja2
from jinja2 import nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser

from tokenext.loop_memory import memory_filters
from tokenext.template_bounds import RenderBounds
from tokenext.template_code import ShortCuts
from tokenext.template_filters import to_json
from tokenext.template_namespace import TemplateNamespace
from tokenext.template_sandbox import BoundedEnvironment

__all__ = ["Now", "template_environment"]

Now = Callable[[], datetime]


def template_environment(*, now: Now, bounds: RenderBounds | None) -> jinja2.Environment:
    """An environment for templates. `now` is what strftime_now shows; `bounds` None trusts the template."""
    options: dict[str, Any] = {
        "trim_blocks": True,
        "lstrip_blocks": True,
        "extensions": [_GenerationTag, loopcontrols],
    }
    environment: jinja2.Environment = (
        jinja2.Environment(**options)  # noqa: S701  # prompts are no HTML
        if bounds is None
        else BoundedEnvironment(max_chars=bounds.max_chars, **options)
    )
    environment.code_generator_class = ShortCuts
    environment.extend(namespace_type=TemplateNamespace)
    environment.filters.update(memory_filters())
    if bounds is None:
        environment.filters["tojson"] = to_json
    environment.globals["raise_exception"] = _raise_exception
    environment.globals["strftime_now"] = lambda layout: now().strftime(layout)
    environment.globals["namespace"] = TemplateNamespace
    environment.globals["dict"] = _dict
    environment.globals.pop("lipsum", None)  # random text
    return environment


class _GenerationTag(Extension):
    """`{% generation %}...{% endgeneration %}` marks what the assistant wrote.

    In a prompt it is plain text with a scope of its own (transformers: AssistantTracker).
    """

    tags = {"generation"}  # noqa: RUF012  # jinja2 declares it so

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.Scope(body, lineno=line)


def _dict(*args: Any, **kwargs: Any) -> dict[Any, Any]:
    """The type itself would come with its methods."""
    return dict(*args, **kwargs)


def _raise_exception(message: str) -> None:
    raise jinja2.TemplateError(message)
