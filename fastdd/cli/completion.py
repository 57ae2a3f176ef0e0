"""What a word of the command line can become, for the shell (``fastdd --install-completion``)."""

from collections.abc import Callable, Iterable
from typing import Any

try:  # Typer has click's classes in it, or uses click's, depending on its version
    from typer._click.shell_completion import CompletionItem
except ImportError:
    from click.shell_completion import CompletionItem

__all__ = ["CompletionItem", "joined", "words"]


def words(known: Iterable[str] | Callable[[], Iterable[str]], *others: str) -> Callable[[str], list[str]]:
    """The completion of an option whose value is one of these; a function is asked when the shell asks.

    >>> words(["dm", "dc", "mtt"])("d")
    ['dm', 'dc']
    """

    def complete(incomplete: str) -> list[str]:
        return [word for word in [*_listed(known), *others] if word.startswith(incomplete)]

    return complete


def joined(known: Iterable[str]) -> Callable[[str], list[str]]:
    """The completion of an option whose values are joined by commas: of the last one.

    >>> joined(["ConvNet", "LeNet"])("ConvNet,Le")
    ['ConvNet,LeNet']
    """

    def complete(incomplete: str) -> list[str]:
        before, comma, last = incomplete.rpartition(",")
        return [f"{before}{comma}{word}" for word in _listed(known) if word.startswith(last)]

    return complete


def _listed(known: Any) -> list[str]:
    return [*(known() if callable(known) else known)]
