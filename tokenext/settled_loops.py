"""Loops of a chat template that are over early: whatever they may still do is behind a flag that is down.

Many templates look for the last question of a conversation, from its end:

    {% for message in messages[::-1] %}
      {% set index = messages|length - 1 - loop.index0 %}
      {% if ns.searching and message.role == "user" %}
        {% set ns.searching = false %}{% set ns.found = index %}
      {% endif %}
    {% endfor %}

jinja2 has no need to go on once `ns.searching` is false, but does, through all of the conversation. Such a
loop gets a `break` behind its body. The proof is by syntax: beside conditions that ask the flag first, a body
may only count (numbers, its place, lengths), which changes nothing outside of it, and cannot fail where it
did not before.
"""

from typing import Final

from jinja2 import nodes

__all__ = ["end_settled_loops"]

_LOOP: Final = "loop"
_PLACES: Final = frozenset({"index", "index0"})
_LENGTHS: Final = frozenset({"length", "count"})

# A namespace's name, and that of its attribute.
_Flag = tuple[str, str]


def end_settled_loops(tree: nodes.Template) -> nodes.Template:
    """Let the loops that allow it end as soon as their flag is down, in place."""
    for loop in tree.find_all(nodes.For):
        flag = _flag(loop)
        if flag is not None:
            name, attribute = flag
            down = nodes.Not(nodes.Getattr(nodes.Name(name, "load"), attribute, "load"))
            end = nodes.If(down, [nodes.Break()], [], [])
            end.set_lineno(loop.lineno)
            loop.body.append(end)
    return tree


def _flag(loop: nodes.For) -> _Flag | None:
    """The flag without which an iteration does nothing, or None where none is proved."""
    if loop.recursive or loop.test is not None or loop.else_:
        return None
    assigned = {name.name for name in loop.find_all(nodes.Name) if name.ctx != "load"}
    flags: set[_Flag | None] = set()
    for node in loop.body:
        if isinstance(node, nodes.If):
            flags.add(_asked_first(node))
        elif not (
            isinstance(node, nodes.Assign)
            and isinstance(node.target, nodes.Name)
            and _counts(node.node, assigned)
        ):
            return None
    flag = flags.pop() if len(flags) == 1 else None
    # A name that an iteration sets may hide the namespace of that name.
    return None if flag is None or flag[0] in assigned | {_LOOP} else flag


def _asked_first(node: nodes.If) -> _Flag | None:
    """The flag of `{% if ns.flag and ... %}`, where there is no other branch."""
    if node.elif_ or node.else_:
        return None
    test = node.test
    while isinstance(test, nodes.And):
        test = test.left
    if isinstance(test, nodes.Getattr) and isinstance(test.node, nodes.Name):
        return test.node.name, test.attr
    return None


def _counts(node: nodes.Node, assigned: set[str]) -> bool:
    """Whether it is arithmetic over the place and over what no iteration changes, which `assigned` are."""
    if isinstance(node, nodes.Const):
        return type(node.value) is int
    if isinstance(node, nodes.Add | nodes.Sub):
        return _counts(node.left, assigned) and _counts(node.right, assigned)
    if isinstance(node, nodes.Filter):
        bare = not (node.args or node.kwargs or node.dyn_args or node.dyn_kwargs)
        items = node.node
        return bare and node.name in _LENGTHS and isinstance(items, nodes.Name) and items.name not in assigned
    return (
        isinstance(node, nodes.Getattr)
        and node.attr in _PLACES
        and isinstance(node.node, nodes.Name)
        and node.node.name == _LOOP
        and _LOOP not in assigned
    )
