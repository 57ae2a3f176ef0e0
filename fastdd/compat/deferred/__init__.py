"""Results of networks that are worked out when something needs them: many of a script's loop together, or none at all.

A recognised network's ``embed`` and ``forward``, called by a script's own code, return a :class:`.graph.Deferred`. What
such scripts do with it is recorded (:mod:`.vocabulary`); ``backward``, ``item``, ``print`` and whatever else needs a
value compute what it takes, and nothing else:

- synthetic batches that follow one another go through the network together;
- real gradients of several groups of a batch come from one pass over it, and are matched at once;
- what nothing asks for is not computed.

An operation outside of the vocabulary gets ordinary tensors, which were computed by the script's own calls in their
order. Operands are copied when they are recorded, so what changes afterwards (images, weights) changes no result.
"""

from fastdd.compat.deferred.calls import methods
from fastdd.compat.deferred.hints import notices
from fastdd.compat.deferred.sites import rows
from fastdd.compat.deferred.switch import use

__all__ = ["methods", "notices", "rows", "use"]
