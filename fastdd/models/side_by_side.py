"""Several networks of one architecture as one, in which none sees another: a launch a layer, however many there are.

Networks that are trained on few images are small work for a GPU, which waits for launches. Side by side, the channels
of network k are those from k C to (k + 1) C, of C. Convolutions have a group a network and norms are of more channels;
a linear layer is a batched product; what treats every channel alike (activations, poolings, sums) stays as it is, and
so do the fused ops, and the forward code of the networks.
"""

import copy

import torch
from torch import Tensor, nn

from fastdd.models.adapted import Adapted
from fastdd.models.layout import Images, activations, fast_layout
from fastdd.models.network import Network

# Of a GPU's memory, which part the activations of networks side by side may take.
_SHARE = 8
_LEAVES = (nn.Conv2d, nn.Linear, nn.GroupNorm, nn.BatchNorm2d)


class _Linear(nn.Module):
    """A linear layer a network: [N, count * inputs] to [N, count * outputs]."""

    def __init__(self, layer: nn.Linear, count: int):
        super().__init__()
        self.weight = nn.Parameter(layer.weight.new_empty((count, *layer.weight.shape)))
        self.bias = None if layer.bias is None else nn.Parameter(layer.bias.new_empty((count, *layer.bias.shape)))

    def of_each(self, x: Tensor) -> Tensor:
        """[count, N, outputs]."""
        rows, weight = x.unflatten(1, (len(self.weight), -1)).transpose(0, 1), self.weight.mT
        return torch.bmm(rows, weight) if self.bias is None else torch.baddbmm(self.bias[:, None], rows, weight)

    def forward(self, x: Tensor) -> Tensor:
        return self.of_each(x).transpose(0, 1).flatten(1)


def _widened(layer: nn.Module, count: int) -> nn.Module:
    """The layer for ``count`` networks; its parameters' values are not defined."""
    if isinstance(layer, nn.Linear):
        return _Linear(layer, count)
    if isinstance(layer, nn.GroupNorm):
        return nn.GroupNorm(count * layer.num_groups, count * layer.num_channels, layer.eps, layer.affine)
    if isinstance(layer, nn.BatchNorm2d):
        running = layer.track_running_stats
        return nn.BatchNorm2d(count * layer.num_features, layer.eps, layer.momentum, layer.affine, running)
    return type(layer)(
        count * layer.in_channels,
        count * layer.out_channels,
        layer.kernel_size,
        layer.stride,
        layer.padding,
        layer.dilation,
        count * layer.groups,
        layer.bias is not None,
        layer.padding_mode,
    )


def fits_side_by_side(net: nn.Module) -> bool:
    """Whether the network is made of layers that :class:`SideBySide` knows: all those of this package but ViT, and
    ConvNets with layer norm; no registered network, whose forward code may do what is not of each channel alike."""
    return not isinstance(net, Adapted) and all(
        isinstance(layer, _LEAVES) or not [*layer.parameters(recurse=False), *layer.buffers(recurse=False)]
        for layer in net.modules()
    )


def networks_at_once(net: nn.Module, images: Images, batch: int) -> int:
    """How many networks to train side by side; at least 1.

    On a GPU as many as have activations, by an estimate, that fit in an eighth of its memory: where one network's do
    not, it is work enough by itself. On CPUs, where nothing waits for launches, and for networks that do not fit, 1.

    Args:
        net: one of them.
        images: of a training batch's size, where they are read.
        batch: images of it.
    """
    if images.device.type == "cpu" or not fits_side_by_side(net):
        return 1
    total = torch.cuda.mem_get_info(images.device)[1]
    return max(1, total // _SHARE // (batch * activations(net, images)))


class SideBySide(nn.Module):
    """``count`` networks like ``net``, whose parameters :meth:`take` sets and :meth:`give` returns.

    The same values and derivatives as of each network by itself, to rounding.

    Args:
        net: stays as it is.
        count: networks.

    Raises:
        TypeError: a network with other layers (:func:`fits_side_by_side`).

    >>> from fastdd.models import MLP
    >>> nets = SideBySide(MLP(1, 10, (4, 4)), 3)
    >>> nets(torch.zeros(3, 5, 1, 4, 4)).shape
    torch.Size([3, 5, 10])
    """

    def __init__(self, net: Network, count: int):
        super().__init__()
        if not fits_side_by_side(net):
            raise TypeError(f"{type(net).__name__} has layers that do not run side by side")
        self.count = count
        device, dtype = next((p.device, p.dtype) for p in net.parameters())
        with torch.device("meta"):
            self.net = _without_values(net)
            for name, layer in [*self.net.named_modules()]:
                if isinstance(layer, _LEAVES):
                    parent, _, child = name.rpartition(".")
                    setattr(self.net.get_submodule(parent), child, _widened(layer, count))
        self.net.to_empty(device=device).to(dtype)

    def forward(self, images: Tensor) -> Tensor:
        """Logits [count, N, num_classes] of normalised images [count, N, C, H, W], N of each network."""
        count, n, channels, height, width = images.shape
        # One copy, into the channels-last memory that fast_layout asks for.
        x = images.permute(1, 3, 4, 0, 2).reshape(n, height, width, count * channels).permute(0, 3, 1, 2)
        # Not the network's own call: between its last layer's results and the losses nothing is to be moved.
        return getattr(self.net, self.net.head).of_each(self.net.embed(fast_layout(x)))

    @torch.no_grad()
    def take(self, number: int, net: Network) -> None:
        """Let network ``number`` be as ``net`` is."""
        for mine, its in self._pairs(number, net):
            mine.copy_(its)

    @torch.no_grad()
    def give(self, number: int, net: Network) -> None:
        """Let ``net`` be as network ``number`` is."""
        for mine, its in self._pairs(number, net):
            its.copy_(mine)

    def _pairs(self, number: int, net: Network) -> list[tuple[Tensor, Tensor]]:
        pairs = []
        for whole, part in (
            *zip(self.net.parameters(), net.parameters(), strict=True),
            *zip(self.net.buffers(), net.buffers(), strict=True),
        ):
            # Scalars, which count batches, are the same of all.
            pairs.append((whole.view(self.count, *part.shape)[number] if part.dim() else whole, part))
        return pairs


def _without_values(net: Network) -> Network:
    """A copy on the meta device."""
    memo: dict[int, Tensor] = {}
    for tensor in (*net.parameters(), *net.buffers()):
        empty = torch.empty_like(tensor, device="meta")
        memo[id(tensor)] = nn.Parameter(empty) if isinstance(tensor, nn.Parameter) else empty
    return copy.deepcopy(net, memo)
