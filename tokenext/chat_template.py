"""Chat templates: jinja2, in the environment that transformers renders them in (template_environment.py).

What a model server does to a request before its template runs is a Profile's business (profiles.py).
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import jinja2
from jinja2 import meta, nodes

from extproc.verdict import JsonValue
from tokenext.content_format import ContentFormat, content_format
from tokenext.declined import Declined, SkipReason
from tokenext.loop_analysis import remember_loops
from tokenext.loop_memory import MEMORY, LoopMemory
from tokenext.minijinja_doubts import DOUBTS, Doubts
from tokenext.minijinja_watch import watch
from tokenext.settled_loops import end_settled_loops
from tokenext.template_bounds import Budget, RenderBounds, RenderLimitError, RenderTimeError
from tokenext.template_environment import Now, template_environment
from tokenext.template_filters import BUDGET
from tokenext.template_sandbox import BoundedEnvironment
from tokenext.vllm_content_format import vllm_content_format

__all__ = ["ChatTemplate", "ChatTemplates", "TemplateSourceError"]

_DEFAULT_BOUNDS: Final = RenderBounds()
# Put behind the last message's text, to find where it ends in the prompt. The space tells whether the
# template strips content.
_END_MARK: Final = "\ue000tokenext:final\ue000 "
_PIECES_BETWEEN_LOOKS: Final = 64
# As Python writes what has no text of its own (a method, an iterator): by its place in memory.
_ADDRESS: Final = " at 0x"


class TemplateSourceError(ValueError):
    """A template that jinja2 cannot compile; the message names the line where it can."""


class ChatTemplate:
    """One compiled template. Rendering is thread-safe: it keeps nothing between calls.

    `variables` are the names that the template looks up and does not define: what vLLM passes on to it.
    """

    def __init__(
        self,
        source: str,
        *,
        now: Now,
        bounds: RenderBounds | None = _DEFAULT_BOUNDS,
        watched: bool = False,
    ) -> None:
        """Compile. `now` is what strftime_now shows; `bounds` None trusts the template with everything.

        A `watched` template notes where minijinja would give other text. Raises TemplateSourceError.
        """
        environment = template_environment(now=now, bounds=bounds)
        try:
            tree = environment.parse(source)
            self.variables = _undeclared(source, environment)
            self.content_format: ContentFormat = content_format(tree)
            self.vllm_content_format: ContentFormat = vllm_content_format(tree)
            self.shows_date = any(name.name == "strftime_now" for name in tree.find_all(nodes.Name))
            self._keys = frozenset(_keys(tree))
            tree = end_settled_loops(remember_loops(tree))
            if watched:
                tree = watch(environment, tree, source)
            if isinstance(environment, BoundedEnvironment):
                tree = environment.bounded(tree)
            self._template = environment.from_string(tree)
            # jinja2's own is a ChainMap, which each render would merge anew, in Python.
            self._template.globals = dict(self._template.globals)
        except jinja2.TemplateSyntaxError as error:
            raise TemplateSourceError(f"line {error.lineno}: {error.message}") from None
        except (RecursionError, SyntaxError, MemoryError, OverflowError):
            # Python's own limits on what jinja2 generates.
            raise TemplateSourceError("it is nested too deeply") from None
        self._bounds = bounds
        self.source = source
        # What a render without notes left behind says nothing of what is to be noted.
        self.memory_key = f"{'watched' if watched else 'plain'}:{source}"

    def reads(self, key: str) -> bool:
        """Whether the template names a key of this name, as an attribute or in quotes."""
        return key in self._keys

    def render(
        self,
        messages: Sequence[Mapping[str, JsonValue]],
        variables: Mapping[str, JsonValue],
        doubts: Doubts | None = None,
        memory: LoopMemory | None = None,
    ) -> str:
        """The prompt. Raises Declined where the template fails, refuses or goes out of its bounds.

        A template that prints a place in memory fails: the engine would print another. `doubts` takes the
        notes of a watched template. `memory` is what an earlier turn of the conversation left behind, and
        gets what this one does.
        """
        arguments: dict[str, Any] = {**variables, "messages": messages}
        try:
            return self._proper_text(arguments, doubts, memory)
        except RenderTimeError:
            raise Declined(SkipReason.RENDER_DEADLINE) from None
        except RenderLimitError:
            raise Declined(SkipReason.RENDER_LIMIT) from None
        # A template is a program of somebody else's: besides jinja2's errors it raises TypeError, ValueError,
        # KeyError, RecursionError and more, and each of them means just that it cannot render this.
        except Exception:  # noqa: BLE001  # as said
            raise Declined(SkipReason.RENDER_FAILED) from None

    def _proper_text(
        self, arguments: dict[str, Any], doubts: Doubts | None, memory: LoopMemory | None
    ) -> str:
        prompt = self._text(
            {**arguments, DOUBTS: doubts, MEMORY: memory}, [] if memory is None else memory.output
        )
        # What is recalled was looked through when it was printed.
        new = prompt if memory is None else memory.printed_anew()
        # Clients send such texts, too, when they ask about programs.
        if _ADDRESS in new and _ADDRESS in self._text(_without_addresses(arguments), []):
            raise jinja2.TemplateError("a place in memory")
        return prompt

    def _text(self, arguments: dict[str, Any], prompt: list[str]) -> str:
        """Render. Each piece is in `prompt` before the next is made: a memory looks at how many there are."""
        if self._bounds is None:
            for piece in self._pieces(arguments):
                prompt.append(piece)  # noqa: PERF402  # as said
        else:
            self._bounded(arguments, self._bounds, prompt)
        return "".join(prompt)

    def _pieces(self, arguments: dict[str, Any]) -> Iterator[str]:
        return self._template.root_render_func(self._template.new_context(arguments))

    def _bounded(self, arguments: dict[str, Any], bounds: RenderBounds, prompt: list[str]) -> None:
        budget = Budget(bounds)
        arguments[BUDGET] = budget
        size = 0
        for count, piece in enumerate(self._pieces(arguments), 1):
            prompt.append(piece)
            size += len(piece)
            if not count % _PIECES_BETWEEN_LOOKS:
                budget.admit(size)
                budget.look()
        budget.admit(size)

    def render_unfinished(
        self,
        messages: Sequence[Mapping[str, JsonValue]],
        variables: Mapping[str, JsonValue],
        doubts: Doubts | None = None,
        *,
        spaces: str | None = None,
    ) -> str:
        """The prompt up to the end of the last message's text, for the model to go on from there.

        This is `continue_final_message` of transformers 5 (render_jinja_template): what the template puts
        behind the text is cut off, and so is white space at its end where the template strips it. Where
        content is a list, the text is that of the last part that has one. `spaces` are the characters that
        count as white space, None for Python's. Raises Declined.
        """
        last = messages[-1]
        if "content" not in self.source:
            raise Declined(SkipReason.BAD_REQUEST_SHAPE)
        content, text = _marked(last.get("content"))
        marked = self.render([*messages[:-1], {**last, "content": content}], variables, doubts)
        end = marked.rfind(_END_MARK.rstrip())
        if end < 0 or text.strip() not in marked:
            raise Declined(SkipReason.RENDER_FAILED)
        stripped = not marked.startswith(_END_MARK, end)
        return marked[:end].rstrip(spaces) if stripped else marked[:end]


def _without_addresses(value: Any) -> Any:
    if isinstance(value, str):
        return value.replace(_ADDRESS, "")
    if isinstance(value, Mapping):
        return {_without_addresses(key): _without_addresses(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_addresses(item) for item in value]
    return value


def _marked(content: JsonValue) -> tuple[JsonValue, str]:
    """The content with the mark behind its text, and that text. Raises Declined."""
    if isinstance(content, str):
        return content + _END_MARK, content
    parts: list[JsonValue] = list(content) if isinstance(content, list) else []
    for position, part in reversed(list(enumerate(parts))):
        if isinstance(part, dict) and isinstance(text := part.get("text"), str):
            parts[position] = {**part, "text": text + _END_MARK}
            return parts, text
    raise Declined(SkipReason.BAD_REQUEST_SHAPE)


def _keys(tree: nodes.Template) -> list[str]:
    attributes = [node.attr for node in tree.find_all(nodes.Getattr)]
    return attributes + [node.value for node in tree.find_all(nodes.Const) if isinstance(node.value, str)]


def _undeclared(source: str, environment: jinja2.Environment) -> frozenset[str]:
    """As vLLM finds them (renderers/hf.py), where these two are no globals."""
    bare = environment.overlay()
    bare.globals = {
        name: value
        for name, value in environment.globals.items()
        if name not in {"raise_exception", "strftime_now"}
    }
    return frozenset(meta.find_undeclared_variables(bare.parse(source)))


class ChatTemplates:
    """A model's templates by name: `default`, and sometimes `tool_use` for requests with tools."""

    def __init__(
        self,
        sources: Mapping[str, str],
        *,
        now: Now,
        bounds: RenderBounds | None = _DEFAULT_BOUNDS,
        watched: bool = False,
    ) -> None:
        """Compile all of them. Raises TemplateSourceError."""
        self._sources = dict(sources)
        self._now = now
        self._bounds = bounds
        self._templates = {
            name: ChatTemplate(source, now=now, bounds=bounds, watched=watched)
            for name, source in sources.items()
        }

    def watched(self) -> "ChatTemplates":
        """The same templates, each of them watched."""
        return ChatTemplates(self._sources, now=self._now, bounds=self._bounds, watched=True)

    def select(self, *, tools: bool) -> ChatTemplate | None:
        """The template for a request, or None where the model has none."""
        if tools and (special := self._templates.get("tool_use")):
            return special
        return self._templates.get("default")
