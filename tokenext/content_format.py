"""Does a chat template take a message's content as text, or as a list of parts?

The question is vLLM's (entrypoints/chat_utils.py, content format "string" or "openai"), and so is the answer:
a template that loops over a message's content takes parts.
"""

from collections.abc import Callable, Iterator
from enum import Enum
from typing import Final

from jinja2 import nodes

__all__ = ["ContentFormat", "content_format"]


class ContentFormat(Enum):
    STRING = "string"
    PARTS = "parts"


_Matcher = Callable[[nodes.Node, set[str]], bool]
_Predicate = Callable[[nodes.Node], bool]
_WRAPPERS: Final = (nodes.Filter, nodes.Test)  # `content | default([])`: still the content


def content_format(template: nodes.Template) -> ContentFormat:
    """Decide from the syntax tree, following content through assignments and into macros."""
    messages = _grow({"messages"}, template, _is_messages)
    message = _message_names(template, messages)
    contents = _grow(set(), template, lambda node, names: _is_content(node, names, message, messages))
    contents |= _macro_parameters(template, lambda node: _is_content(node, contents, message, messages))
    loops = template.find_all(nodes.For)
    if any(_is_content(loop.iter, contents, message, messages) for loop in loops):
        return ContentFormat.PARTS
    return ContentFormat.STRING


def _grow(names: set[str], template: nodes.Template, matches: _Matcher) -> set[str]:
    """All names that end up assigned from something that matches, through any number of steps."""
    while True:
        found = {
            target
            for assign in template.find_all(nodes.Assign)
            if matches(assign.node, names)
            for target in _targets(assign.target)
        }
        if found <= names:
            return names
        names = names | found


def _is_messages(node: nodes.Node, names: set[str]) -> bool:
    if isinstance(node, nodes.Name):
        return node.name in names
    if isinstance(node, nodes.Getitem) and isinstance(node.arg, nodes.Slice):  # messages[1:]
        return _is_messages(node.node, names)
    return any(_is_messages(inner, names) for inner in _inside(node))


def _message_names(template: nodes.Template, messages: set[str]) -> set[str]:
    loops = {
        name
        for loop in template.find_all(nodes.For)
        if _is_messages(loop.iter, messages)
        for name in _targets(loop.target)
    }
    return _grow(loops, template, lambda node, names: _is_message(node, names, messages))


def _is_message(node: nodes.Node, names: set[str], messages: set[str]) -> bool:
    if isinstance(node, nodes.Name):
        return node.name in names
    if isinstance(node, nodes.Getitem):  # messages[0]
        return not isinstance(node.arg, nodes.Slice) and _is_messages(node.node, messages)
    return False


def _is_content(node: nodes.Node, names: set[str], message: set[str], messages: set[str]) -> bool:
    if isinstance(node, nodes.Name):
        return node.name in names
    if isinstance(node, nodes.Getattr):
        return node.attr == "content" and _is_message(node.node, message, messages)
    if isinstance(node, nodes.Getitem):
        if isinstance(node.arg, nodes.Slice):
            return _is_content(node.node, names, message, messages)
        key = node.arg.value if isinstance(node.arg, nodes.Const) else None
        return key == "content" and _is_message(node.node, message, messages)
    return any(_is_content(inner, names, message, messages) for inner in _inside(node))


def _inside(node: nodes.Node) -> Iterator[nodes.Node]:
    """What an expression may evaluate to: the wrapped value, either branch of a choice."""
    if isinstance(node, _WRAPPERS) and node.node is not None:
        yield node.node
    elif isinstance(node, nodes.CondExpr):
        yield node.expr1
        if node.expr2 is not None:
            yield node.expr2
    elif isinstance(node, nodes.Or | nodes.And):
        yield node.left
        yield node.right


def _macro_parameters(template: nodes.Template, is_content: _Predicate) -> set[str]:
    called = {
        call.node.name
        for call in template.find_all(nodes.Call)
        if isinstance(call.node, nodes.Name) and any(is_content(argument) for argument in call.args)
    }
    return {
        parameter.name
        for macro in template.find_all(nodes.Macro)
        if macro.name in called
        for parameter in macro.args
    }


def _targets(target: nodes.Node) -> Iterator[str]:
    if isinstance(target, nodes.Name):
        yield target.name
    elif isinstance(target, nodes.Tuple):
        for item in target.items:
            yield from _targets(item)
