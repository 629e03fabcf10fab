"""The content format that vLLM 0.32 detects for a chat template (renderers/hf.py, option "auto").

The answer must be vLLM's own, also where one could know better, because the prompt depends on it. It looks at
names only, not at scopes: a loop over the content of a message, over a variable called `content`, or over a
macro's parameter that is given such a content. Where a template unpacks tuples on the way, vLLM gives up and
takes text.
"""

from collections.abc import Iterator

from jinja2 import nodes

from tokenext.content_format import ContentFormat

__all__ = ["vllm_content_format"]


class _GivesUp(Exception):  # noqa: N818  # an answer, not an error
    pass


def vllm_content_format(template: nodes.Template) -> ContentFormat:
    """Decide from the syntax tree."""
    try:
        found = any(True for _ in _content_loops(template))
    except _GivesUp:
        found = False
    return ContentFormat.PARTS if found else ContentFormat.STRING


def _content_loops(template: nodes.Template) -> Iterator[nodes.For]:
    messages = _message_names(template)
    in_macros: dict[int, set[str]] = {
        id(loop): _content_parameters(template, macro, messages)
        for macro in template.find_all(nodes.Macro)
        for loop in macro.find_all(nodes.For)
    }
    for loop in template.find_all(nodes.For):
        bare = loop.iter.name if isinstance(loop.iter, nodes.Name) else None
        names = in_macros.get(id(loop), {"content"})
        if any(_is_content(loop.iter, name) for name in messages) or bare in names:
            _name(loop.target)
            yield loop


def _message_names(template: nodes.Template) -> list[str]:
    """The variables of loops over the messages, under any name that the messages were given."""
    lists = ["messages"]
    for source in lists:  # grows on the way
        for assign in template.find_all(nodes.Assign):
            if _is_variable(assign.node, source):
                name = _name(assign.target)
                if name not in lists:
                    lists.append(name)
    return [
        _name(loop.target)
        for loop in template.find_all(nodes.For)
        if any(_is_variable(loop.iter, name) for name in lists)
    ]


def _content_parameters(template: nodes.Template, macro: nodes.Macro, messages: list[str]) -> set[str]:
    """The parameters of a macro that are given a message's content in some call."""
    parameters = [argument.name for argument in macro.args]
    found: set[str] = set()
    for call in template.find_all(nodes.Call):
        if not isinstance(call.node, nodes.Name) or call.node.name != macro.name:
            continue
        given = [*zip(parameters, call.args, strict=False)]
        given += [(keyword.key, keyword.value) for keyword in call.kwargs if keyword.key in parameters]
        found |= {name for name, value in given if any(_is_content(value, message) for message in messages)}
    return found


def _name(target: nodes.Node) -> str:
    if not isinstance(target, nodes.Name):
        raise _GivesUp
    return target.name


def _unwrapped(node: nodes.Node) -> nodes.Node:
    """What a filter, a test or a slice is applied to: still the same thing for vLLM."""
    while (inner := _inside(node)) is not None:
        node = inner
    return node


def _inside(node: nodes.Node) -> nodes.Node | None:
    if isinstance(node, nodes.Filter | nodes.Test):
        return node.node
    if isinstance(node, nodes.Getitem) and isinstance(node.arg, nodes.Slice):
        return node.node
    return None


def _is_variable(node: nodes.Node, name: str) -> bool:
    inner = _unwrapped(node)
    return isinstance(inner, nodes.Name) and inner.ctx == "load" and inner.name == name


def _is_content(node: nodes.Node, message: str) -> bool:
    inner = _unwrapped(node)
    if isinstance(inner, nodes.Getitem):
        key = inner.arg.value if isinstance(inner.arg, nodes.Const) else None
    else:
        key = inner.attr if isinstance(inner, nodes.Getattr) else None
    if key != "content" or not isinstance(inner, nodes.Getitem | nodes.Getattr):
        return False
    return isinstance(inner.node, nodes.Name) and inner.node.ctx == "load" and inner.node.name == message
