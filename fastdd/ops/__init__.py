"""The hot ops: one module each, with shape checks, dispatch by device, derivatives and a plain PyTorch reference."""

from fastdd.ops._dispatch import Implementation, implementations
from fastdd.ops.augment import Param, augment, augment_adjoint, identity_params
from fastdd.ops.augment_stored import augment_stored
from fastdd.ops.cf_match import cf_frequencies, cf_match
from fastdd.ops.conv3x3 import Conv2d, conv3x3, runs_as_conv3x3
from fastdd.ops.conv_block import ConvBlock
from fastdd.ops.conv_norm_act_pool import conv_norm_act_pool
from fastdd.ops.cutmix import CutMix, CutMixes, Mixing, cutmix, cutmix_rectangle, mixing
from fastdd.ops.density import log_density
from fastdd.ops.draws import random_parameters
from fastdd.ops.dsa import DSA_OPS, DSA_STRATEGY, diff_augment, dsa_params, parse_strategy, pixel_matrix
from fastdd.ops.embedding_match import embedding_match
from fastdd.ops.formation import GREY, all_parts, check_factor, formation, formation_adjoint
from fastdd.ops.gradient_match import gradient_match
from fastdd.ops.group_grad import group_grad
from fastdd.ops.grouped import grouped_conv_weight, grouped_matmul, grouped_outer
from fastdd.ops.idc_augment import augment_passes, idc_params
from fastdd.ops.kde import kde
from fastdd.ops.knn_kde import KnnDensity, knn_kde
from fastdd.ops.loss_slopes import loss_slopes
from fastdd.ops.norm_act_pool import norm_act_pool
from fastdd.ops.segment_mean import segment_mean, segment_spread
from fastdd.ops.segment_order import segment_order
from fastdd.ops.turns import turns_

__all__ = [
    "DSA_OPS",
    "DSA_STRATEGY",
    "GREY",
    "Conv2d",
    "ConvBlock",
    "CutMix",
    "CutMixes",
    "Implementation",
    "KnnDensity",
    "Mixing",
    "Param",
    "all_parts",
    "augment",
    "augment_adjoint",
    "augment_passes",
    "augment_stored",
    "cf_frequencies",
    "cf_match",
    "check_factor",
    "conv3x3",
    "conv_norm_act_pool",
    "cutmix",
    "cutmix_rectangle",
    "diff_augment",
    "dsa_params",
    "embedding_match",
    "formation",
    "formation_adjoint",
    "gradient_match",
    "group_grad",
    "grouped_conv_weight",
    "grouped_matmul",
    "grouped_outer",
    "idc_params",
    "identity_params",
    "implementations",
    "kde",
    "knn_kde",
    "log_density",
    "loss_slopes",
    "mixing",
    "norm_act_pool",
    "parse_strategy",
    "pixel_matrix",
    "random_parameters",
    "runs_as_conv3x3",
    "segment_mean",
    "segment_order",
    "segment_spread",
    "turns_",
]
