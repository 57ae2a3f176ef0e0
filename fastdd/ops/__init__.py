"""The hot ops: one module each, with shape checks, dispatch by device, derivatives and a plain PyTorch reference."""

from fastdd.ops._dispatch import Implementation, implementations
from fastdd.ops.augment import Param, augment, augment_adjoint, identity_params
from fastdd.ops.dsa import DSA_OPS, DSA_STRATEGY, diff_augment, dsa_params, parse_strategy, pixel_matrix
from fastdd.ops.embedding_match import embedding_match
from fastdd.ops.gradient_match import gradient_match
from fastdd.ops.segment_mean import segment_mean, segment_spread

__all__ = [
    "DSA_OPS",
    "DSA_STRATEGY",
    "Implementation",
    "Param",
    "augment",
    "augment_adjoint",
    "diff_augment",
    "dsa_params",
    "embedding_match",
    "gradient_match",
    "identity_params",
    "implementations",
    "parse_strategy",
    "pixel_matrix",
    "segment_mean",
    "segment_spread",
]
