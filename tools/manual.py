"""Docstrings as the manual shows them: mkdocstrings reads Markdown, docstrings are written for `help()` and doctest.

Sphinx's roles (``:class:`X```) become code, doctests fenced blocks. Named in mkdocs.yml.
"""

import re
from typing import Any

import griffe

_ROLE = re.compile(r":(?:class|func|mod|meth|data|attr):`~?([^`]+)`")


def as_markdown(text: str) -> str:
    """A docstring's text with its roles as code and its doctests fenced, at their own indentation."""
    lines, fenced = [], False
    for line in _ROLE.sub(r"`\1`", text).splitlines():
        if not fenced and line.lstrip().startswith(">>>"):
            fenced, indent = True, line[: len(line) - len(line.lstrip())]
            lines.append(f"{indent}```pycon")
        if fenced and not line.strip():
            fenced = False
            lines.append(f"{indent}```")
        lines.append(line)
    return "\n".join([*lines, f"{indent}```"] if fenced else lines)


class Docstrings(griffe.Extension):
    """Applies :func:`as_markdown` to whatever has a docstring."""

    def on_instance(self, *, obj: griffe.Object, **_: Any) -> None:
        if obj.docstring is not None:
            obj.docstring.value = as_markdown(obj.docstring.value)
