"""Networks by the names that the field uses, and their initialisation from a counter-based key."""

from fastdd.models.convnet import ConvNet
from fastdd.models.encoder import ENCODERS, Encoder, build_encoder
from fastdd.models.init import ParameterInit
from fastdd.models.layout import chunk_size, classes_at_once, exact_convolutions
from fastdd.models.registry import build, canonical_name, names

__all__ = [
    "ENCODERS",
    "ConvNet",
    "Encoder",
    "ParameterInit",
    "build",
    "build_encoder",
    "canonical_name",
    "chunk_size",
    "classes_at_once",
    "exact_convolutions",
    "names",
]
