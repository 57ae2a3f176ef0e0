"""Group weights: a class stays one segment, in which images count inversely to the size of their group (FairDD's DF).

    w_i in proportion to 1 / n_{y,g},    n_{y,g}: images of class y and group g in the whole data set

FairDD's Table 7 compares it as reweighting in distillation ("DF"), of which no code is public. A batch is what was
drawn: a rare group that it has few images of weighs as much as they make up, where ``barycenter`` lets every group of a
batch weigh alike. It is ``kde`` with these weights, to the bit where those are float64.
"""

from dataclasses import replace

from fastdd.debias import none
from fastdd.debias.base import Mode, groups_alike
from fastdd.debias.segments import Batch, Segments


def segments(batch: Batch) -> Segments:
    """One segment a class, weights in proportion to 1/n_group (times those that the batch's images have)."""
    weights = 1 / batch.counts[batch.classes, batch.groups].double()
    return none.segments(replace(batch, weights=weights if batch.weights is None else weights * batch.weights))


MODE = Mode("images count inversely to the size of their group (FairDD's DF)", segments, "groups", groups_alike)
