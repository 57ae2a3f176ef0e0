"""``%load_ext fastdd``: the hook in a notebook, for modules that it imports and for functions that its cells define."""

import sys
from typing import Any

from fastdd.compat.hook import finder, recognition, start


class _AfterCells:
    """Looks at what the cells so far have defined."""

    def __init__(self, shell: Any, hook: finder.Hook):
        self._shell, self._hook = shell, hook

    def look(self, *_: Any) -> None:
        """After a cell: known functions that it defined are ours for the cells to come."""
        # As Python, without magics; a cell that isn't Python defines nothing.
        cells = [cell for cell in self._shell.user_ns.get("In", []) if _parses(cell)]
        source = recognition.Source("\n".join(cells))
        if recognition.of_interest(source):
            self._hook.look_at(sys.modules["__main__"], source)


def _parses(cell: str) -> bool:
    try:
        compile(cell, "<cell>", "exec", dont_inherit=True)
    except (SyntaxError, ValueError):
        return False
    return True


def load(shell: Any) -> finder.Hook:
    """Install the hook in IPython's ``shell``; in its namespace it is ``fastdd_hook``, whose ``summary()`` tells."""
    hook = start.install(defer=False)  # deferral knows lines of files, not of cells
    shell.user_ns["fastdd_hook"] = hook
    if finder.enabled():
        shell.events.register("post_run_cell", _AfterCells(shell, hook).look)
    return hook
