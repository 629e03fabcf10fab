"""`namespace()` of chat templates."""

from typing import Any

import jinja2
from jinja2.utils import Namespace

__all__ = ["TemplateNamespace"]


class TemplateNamespace(Namespace):
    """Takes no private names, as in transformers, and is not printed: it may hold itself many times over.

    jinja2's own answers each look-up in Python; here the names are plain attributes.
    """

    def __init__(*args: Any, **kwargs: Any) -> None:  # `self` may be a name in it
        self, *rest = args
        values = dict(*rest, **kwargs)
        for name in values:
            _check_name(name)
        vars(self).update(values)

    __getattribute__ = object.__getattribute__

    def __setitem__(self, name: str, value: Any) -> None:
        _check_name(name)
        vars(self)[name] = value

    def __repr__(self) -> str:
        raise jinja2.TemplateError("a namespace has no text")


def _check_name(name: object) -> None:
    if isinstance(name, str) and name.startswith("_"):
        raise jinja2.TemplateError("a namespace takes no private names")
