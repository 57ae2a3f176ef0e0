"""Signatures with every keyword, as notebooks complete from them; type checkers read the annotations instead."""

import inspect
from collections.abc import Callable, Iterable
from typing import TypeVar

from fastdd.core.settings import unknown_setting

Verb = TypeVar("Verb", bound=Callable[..., object])


def settings_of(arguments: type) -> list[inspect.Parameter]:
    """The keys of a TypedDict of settings as parameters; None counts as not given."""
    return [
        inspect.Parameter(
            name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=getattr(kind, "__forward_arg__", kind)
        )
        for name, kind in arguments.__annotations__.items()
    ]


def keywords_of(verb: Callable[..., object]) -> list[inspect.Parameter]:
    """The parameters of another function, or class, that are given by name."""
    parameters = inspect.signature(verb).parameters.values()
    return [parameter for parameter in parameters if parameter.kind is parameter.KEYWORD_ONLY]


def with_keywords(keywords: Iterable[inspect.Parameter]) -> Callable[[Verb], Verb]:
    """Decorator: the function's ``**`` is shown as these keywords."""
    keywords = list(keywords)

    def decorate(verb: Verb) -> Verb:
        signature = inspect.signature(verb)
        named = [
            parameter for parameter in signature.parameters.values() if parameter.kind is not parameter.VAR_KEYWORD
        ]
        verb.__signature__ = signature.replace(parameters=[*named, *keywords])  # type: ignore[attr-defined]
        return verb

    return decorate


def check_known(settings: Iterable[str], *verbs: Callable[..., object]) -> None:
    """ValueError for a setting that none of the verbs takes by name, with the one that may be meant."""
    known = [parameter.name for verb in verbs for parameter in keywords_of(verb)]
    for name in settings:
        if name not in known:
            raise unknown_setting(name, known)
