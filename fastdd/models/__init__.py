"""Networks by the names that the field uses, and their initialisation from a counter-based key."""

from fastdd.models.adapted import replays
from fastdd.models.convnet import ConvNet
from fastdd.models.convnet_loss import ConvNetLoss
from fastdd.models.encoder import DIM as EMBEDDING_DIM
from fastdd.models.encoder import ENCODERS, Encoder, build_encoder
from fastdd.models.init import ParameterInit, initialised
from fastdd.models.layout import chunk_size, classes_at_once, exact_convolutions
from fastdd.models.network import FeatureNetwork, Network, couples_samples, embedder_chunk
from fastdd.models.registry import build, canonical_name, check, is_convnet, names, register
from fastdd.models.resnet import ResNet
from fastdd.models.side_by_side import SideBySide, fits_side_by_side, networks_at_once
from fastdd.models.stacks import MLP, VGG, AlexNet, LeNet
from fastdd.models.vit import ViT

__all__ = [
    "EMBEDDING_DIM",
    "ENCODERS",
    "MLP",
    "VGG",
    "AlexNet",
    "ConvNet",
    "ConvNetLoss",
    "Encoder",
    "FeatureNetwork",
    "LeNet",
    "Network",
    "ParameterInit",
    "ResNet",
    "SideBySide",
    "ViT",
    "build",
    "build_encoder",
    "canonical_name",
    "check",
    "chunk_size",
    "classes_at_once",
    "couples_samples",
    "embedder_chunk",
    "exact_convolutions",
    "fits_side_by_side",
    "initialised",
    "is_convnet",
    "names",
    "networks_at_once",
    "register",
    "replays",
]
