"""KDE reweighting: images count by how rare they are in their class ("Mitigating Bias in Dataset Distillation", eq. 2).

One segment a class, as in vanilla matching; the batch has weights (:mod:`fastdd.debias.density.kde`), or was drawn in
proportion to them.
"""

from fastdd.debias import none
from fastdd.debias.base import Mode, by_weight

MODE = Mode("images count by how rare they are; bias need not be labelled", none.segments, "weights", by_weight)
