"""KDE reweighting: images count by how rare they are in their class, so that no group of them has to be known.

"Mitigating Bias in Dataset Distillation" (sections 4.1 and 4.2): weights N(1 / density) of the training images. No
public code exists; what the paper leaves open (its score, the cut-off score of its appendix A.6) is an option here.
"""

from fastdd.debias.density.kde.checks import check_embeddings, check_labels, check_weights
from fastdd.debias.density.kde.diagnostics import Diagnostics, diagnose
from fastdd.debias.density.kde.doubts import warn
from fastdd.debias.density.kde.estimate import kde_weights
from fastdd.debias.density.kde.rarity import Rarity, rarity
from fastdd.debias.density.kde.settings import DENSITIES, SCOPES, SCORES, KdeSettings
from fastdd.debias.density.kde.verdict import Verdict, judge, neighbours
from fastdd.debias.density.kde.weights import KdeWeights, load_array, load_embeddings, load_weights

__all__ = [
    "DENSITIES",
    "SCOPES",
    "SCORES",
    "Diagnostics",
    "KdeSettings",
    "KdeWeights",
    "Rarity",
    "Verdict",
    "check_embeddings",
    "check_labels",
    "check_weights",
    "diagnose",
    "judge",
    "kde_weights",
    "load_array",
    "load_embeddings",
    "load_weights",
    "neighbours",
    "rarity",
    "warn",
]
