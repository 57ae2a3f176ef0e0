"""The Python interface: the same words as the commands, one file each.

In a script that torchrun started, every rank makes the same calls with the same arguments; the ranks share the work,
and all get the result. Rank 0 writes the files and calls ``progress``.
"""

from fastdd.api.audit import audit
from fastdd.api.device import pick_device
from fastdd.api.distill import distill
from fastdd.api.distillation import Distillation
from fastdd.api.estimate import estimate
from fastdd.api.evaluate import check_keep_nets, estimate_evaluation, evaluate, planned_evaluation
from fastdd.api.exchange import export_synthetic, import_synthetic, load_synthetic
from fastdd.api.experts import check_experts, estimate_experts, import_experts, train_experts
from fastdd.api.explain import explain
from fastdd.api.network_training import NetworkTraining
from fastdd.api.rank import planned_ranking, rank
from fastdd.api.register import load_plugin, register_dataset, register_method, register_mode, register_network
from fastdd.api.relabel import relabel
from fastdd.api.train import load_network, train_network
from fastdd.api.weights import estimate_weights, kde_weights, pseudo_groups
from fastdd.core import plugins
from fastdd.evaluation import check_fits

__all__ = [
    "Distillation",
    "NetworkTraining",
    "audit",
    "check_experts",
    "check_fits",
    "check_keep_nets",
    "distill",
    "estimate",
    "estimate_evaluation",
    "estimate_experts",
    "estimate_weights",
    "evaluate",
    "explain",
    "export_synthetic",
    "import_experts",
    "import_synthetic",
    "kde_weights",
    "load_network",
    "load_plugin",
    "load_synthetic",
    "pick_device",
    "planned_evaluation",
    "planned_ranking",
    "pseudo_groups",
    "rank",
    "register_dataset",
    "register_method",
    "register_mode",
    "register_network",
    "relabel",
    "train_experts",
    "train_network",
]

# Behind all that they use of this package.
plugins.load_named()
