"""``models/convnet.py`` of IDC, with what DREAM's and NCFM's have besides."""

from collections.abc import Callable

from torch import Tensor, nn

from fastdd import ops
from fastdd.models.blocks import run_parts
from fastdd.models.convnet import NORMS
from fastdd.models.layout import fast_layout
from fastdd.models.network import chosen

__all__ = ["ConvNet"]

_ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "sigmoid": nn.Sigmoid,
    "leakyrelu": lambda: nn.LeakyReLU(negative_slope=0.01),
}
_POOLINGS: dict[str, Callable[[], nn.Module | None]] = {
    "avgpooling": lambda: nn.AvgPool2d(2),
    "maxpooling": lambda: nn.MaxPool2d(2),
    "none": lambda: None,
}


class ConvNet(nn.Module):
    """:class:`fastdd.models.ConvNet` with its layers in lists: ``layers.conv.0.weight``, ``layers.norm.0.weight``, ...

    Args:
        num_classes: outputs.
        net_norm: instance, group, layer, batch or none.
        net_depth: blocks.
        net_width: filters a convolution.
        channel: image channels; of one, the first convolution pads by 3.
        net_act: relu, sigmoid or leakyrelu.
        net_pooling: avgpooling, maxpooling or none.
        im_size: image height and width; 28 counts as 32, as the padding makes it.

    Raises:
        ValueError: an unknown norm, activation or pooling.
    """

    def __init__(
        self,
        num_classes: int,
        net_norm: str = "instance",
        net_depth: int = 3,
        net_width: int = 128,
        channel: int = 3,
        net_act: str = "relu",
        net_pooling: str = "avgpooling",
        im_size: tuple[int, int] = (32, 32),
    ):
        super().__init__()
        self.net_act = _ACTIVATIONS[chosen("net_act", net_act, _ACTIVATIONS)]()
        self.net_pooling = _POOLINGS[chosen("net_pooling", net_pooling, _POOLINGS)]()
        self.depth, self.net_norm = net_depth, net_norm
        norms = {name.removesuffix("norm"): make for name, make in NORMS.items()}
        make_norm = {**norms, "none": None}[chosen("net_norm", net_norm, {**norms, "none": None})]
        height, width = (32, 32) if channel == 1 and im_size[0] == 28 else im_size
        convs, norm_layers = [], []
        for depth in range(net_depth):
            first = channel == 1 and depth == 0
            convs.append(ops.Conv2d(net_width if depth else channel, net_width, 3, padding=3 if first else 1))
            if make_norm:
                norm_layers.append(make_norm(net_width, height, width))
            if self.net_pooling is not None:
                height, width = height // 2, width // 2
        pools = [] if self.net_pooling is None else [self.net_pooling] * net_depth
        lists = {"conv": convs, "norm": norm_layers, "act": [self.net_act] * net_depth, "pool": pools}
        self.layers = nn.ModuleDict({name: nn.ModuleList(layers) for name, layers in lists.items()})
        self.classifier = nn.Linear(net_width * height * width, num_classes)

    def _parts(self) -> list[list[nn.Module]]:
        """The layers of every block."""
        return [[layers[depth] for layers in self.layers.values() if len(layers)] for depth in range(self.depth)]

    def forward(self, x: Tensor, return_features: bool = False) -> Tensor | tuple[Tensor, Tensor]:
        """Logits; with ``return_features`` (logits, what the classifier saw)."""
        features = self.embed(x)
        logits = self.classifier(features)
        return (logits, features) if return_features else logits

    def embed(self, x: Tensor) -> Tensor:
        """What the classifier sees (DREAM)."""
        return run_parts(fast_layout(x), self._parts()).flatten(1)

    def embed_to_logit(self, x: Tensor) -> Tensor:
        """Logits of what :meth:`embed` gave (DREAM)."""
        return self.classifier(x)

    def get_feature_from_layer(self, x: Tensor, return_features: bool = False) -> Tensor | tuple[Tensor, list[Tensor]]:
        """Logits; with ``return_features`` (logits, outputs of all blocks) (NCFM)."""
        if not return_features:
            return self(x)
        features, logits = self.get_feature(x, 0, self.depth, return_logit=True)
        return logits, features

    def get_feature(
        self, x: Tensor, idx_from: int, idx_to: int = -1, return_prob: bool = False, return_logit: bool = False
    ) -> list[Tensor] | tuple[list[Tensor], Tensor]:
        """The outputs of blocks ``idx_from`` to ``idx_to`` (default: the one); those of all blocks, and probabilities
        or logits, where these are asked for and ``idx_to`` is past the last block."""
        last = idx_from if idx_to == -1 else idx_to
        x, features = fast_layout(x), []
        for layers in self._parts():
            x = run_parts(x, [layers])
            features.append(x)
            if last < len(features):
                return features[idx_from : last + 1]
        if not (return_prob or return_logit):
            return features[idx_from : last + 1]
        logits = self.classifier(x.flatten(1))
        return features, logits.softmax(-1) if return_prob else logits
