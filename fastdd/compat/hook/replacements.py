"""What the import hook replaces: functions and classes of published distillation code, by name and signature."""

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from fastdd.compat.hook import verify

_OPERATIONS = tuple(
    f"rand_{name}" for name in ("brightness", "saturation", "contrast", "crop", "cutout", "flip", "scale", "rotate")
)
# What the modules of a family define, methods as Class.method; one that defines ENOUGH of them is of the family.
FAMILIES = {
    "dc": frozenset(
        (
            *("DiffAugment", "ParamDiffAug", "set_seed_DiffAug", *_OPERATIONS),
            *("match_loss", "distance_wb", "epoch", "epoch_Fairness_Metric", "evaluate_synset", "augment"),
            *("get_dataset", "get_network", "get_loops", "get_daparam", "get_eval_pool", "get_default_convnet_setting"),
            *(f"ConvNet._{method}" for method in ("get_activation", "get_pooling", "get_normlayer", "make_layers")),
        )
    ),
    "idc": frozenset(
        (
            "DiffAug.set_seed",
            *(f"DiffAug.{name}_fn" for name in ("scale", "rotate", "flip", "brightness", "crop", "cutout")),
            *(f"ConvNet.{method}" for method in ("get_feature", "_get_normlayer", "_make_layers")),
        )
    ),
}
ENOUGH = 3


@dataclass(frozen=True)
class Replacement:
    """A name, how it is told, and what takes its place.

    Attributes:
        name: of the function or class.
        signature: of the function, or of the class's constructor without self; annotations don't count.
        ours: ``module:name`` of what takes its place.
        check: compares one call of the original with ours (:mod:`fastdd.compat.hook.verify`).
        returns: how many values a call returns, where code with this signature differs in that.
        parts: other names of the module that make up what it does.
        needs: names whose replacement it calls instead of the module's own: it is replaced only if they are.
        unless: a reason to leave one call, by its arguments, to the original.
        mentions: a name in the code of the function, where several of one signature differ.
        methods: of a class, what it may define, with signatures; one that defines more is left alone.
        layers: of a network, the name of the module that has its convolutions.
    """

    name: str
    signature: str
    ours: str
    check: Callable[..., Any]
    returns: int | None = None
    parts: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    unless: Callable[[Mapping[str, Any]], str | None] | None = None
    mentions: str | None = None
    methods: Mapping[str, str] = field(default_factory=dict)
    layers: str = ""

    def load(self) -> Any:
        """Our function or class."""
        module, _, name = self.ours.partition(":")
        return getattr(importlib.import_module(module), name)


def _unknown_operation(arguments: Mapping[str, Any]) -> str | None:
    strategy = arguments.get("strategy") or "none"
    if strategy.lower() == "none":
        return None
    unknown = sorted(set(strategy.split("_")) - {"color", "crop", "cutout", "flip", "scale", "rotate"})
    return f"strategy {strategy!r}: {', '.join(unknown)} is the module's own" if unknown else None


def _needs_the_modules_own(arguments: Mapping[str, Any]) -> str | None:
    """MTT's and TESLA's ``epoch`` share a signature; these are the parts that only one of them has."""
    settings = arguments["args"]
    if getattr(settings, "dataset", None) == "ImageNet":
        return "args.dataset is ImageNet: its labels are mapped by the module's own table"
    if getattr(settings, "teacher_label", False):
        return "args.teacher_label: labels are the teacher's"
    return None


_CONVNET = {
    "forward": "(self, x)",
    "embed": "(self, x)",
    "_get_activation": "(self, net_act)",
    "_get_pooling": "(self, net_pooling)",
    "_get_normlayer": "(self, net_norm, shape_feat)",
    "_make_layers": "(self, channel, net_width, net_depth, net_norm, net_act, net_pooling, im_size)",
}
_IDC_CONVNET = {
    "forward": "(self, x, return_features=False)",
    "get_feature": "(self, x, idx_from, idx_to=-1, return_prob=False, return_logit=False)",
    "get_feature_from_layer": "(self, x, return_features=False)",
    "embed": "(self, x)",
    "embed_to_logit": "(self, x)",
    "_get_normlayer": "(self, net_norm, shape_feat)",
    "_make_layers": "(self, channel, net_width, net_depth, net_norm, net_pooling, im_size)",
}
_DIFFAUG = {
    "__call__": "(self, x, single_aug=True, seed=-1)",
    "set_seed": "(self, seed)",
    **{
        f"{name}_fn": "(self, x, batch=True)"
        for name in (
            *("scale", "rotate", "flip", "brightness", "saturation", "contrast", "translate", "crop", "cutout"),
            "cutout_inv",
        )
    },
}

# In an order in which what one needs comes before it.
TABLE = (
    Replacement(
        "DiffAugment",
        "(x, strategy='', seed=-1, param=None)",
        "fastdd.compat.mtt:DiffAugment",
        verify.diff_augment,
        parts=("set_seed_DiffAug", *_OPERATIONS, "AUGMENT_FNS"),
        unless=_unknown_operation,
        mentions="batchmode",
    ),
    Replacement(
        "DiffAugment",
        "(x, strategy='', seed=-1, param=None)",
        "fastdd.compat.dc:DiffAugment",
        verify.diff_augment,
        parts=("set_seed_DiffAug", *_OPERATIONS, "AUGMENT_FNS"),
        unless=_unknown_operation,
    ),
    Replacement("augment", "(images, dc_aug_param, device)", "fastdd.compat.dc:augment", verify.augment),
    Replacement("distance_wb", "(gwr, gws)", "fastdd.compat.dc:distance_wb", verify.distance, returns=1),
    Replacement(
        "match_loss",
        "(gw_syn, gw_real, args)",
        "fastdd.compat.dc:match_loss",
        verify.match_loss,
        returns=1,
        needs=("distance_wb",),
    ),
    Replacement(
        "epoch",
        "(mode, dataloader, net, optimizer, criterion, args, aug)",
        "fastdd.compat.dc:epoch",
        verify.epoch,
        returns=2,
        needs=("DiffAugment", "augment"),
    ),
    Replacement(
        "epoch",
        "(mode, dataloader, net, optimizer, criterion, args, aug, texture=False)",
        "fastdd.compat.mtt:epoch",
        verify.epoch,
        returns=2,
        needs=("DiffAugment", "augment"),
        unless=_needs_the_modules_own,
    ),
    Replacement(
        "epoch_Fairness_Metric",
        "(mode, dataloader, net, criterion, args, aug)",
        "fastdd.compat.fairdd:epoch_Fairness_Metric",
        verify.fairness_epoch,
        returns=4,
        needs=("DiffAugment", "augment"),
    ),
    Replacement(
        "ConvNet",
        "(channel, num_classes, net_width, net_depth, net_act, net_norm, net_pooling, im_size=(32, 32))",
        "fastdd.compat.dc:ConvNet",
        verify.network,
        methods=_CONVNET,
        layers="features",
    ),
    Replacement(
        "ConvNet",
        "(num_classes, net_norm='instance', net_depth=3, net_width=128, channel=3, net_act='relu', "
        "net_pooling='avgpooling', im_size=(32, 32))",
        "fastdd.compat.idc:ConvNet",
        verify.network,
        methods=_IDC_CONVNET,
        layers="layers",
    ),
    Replacement(
        "DiffAug",
        "(strategy='color_crop_cutout_flip_scale_rotate', batch=False, ratio_cutout=0.5, single=False)",
        "fastdd.compat.idc:DiffAug",
        verify.diff_aug,
        methods=_DIFFAUG,
    ),
)
