"""Instance norm, ReLU and 2x2 average pooling: what is between two convolutions of a ConvNet."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from fastdd import ops
from fastdd.bench.framework.case import Case
from fastdd.core import rng


@dataclass(frozen=True)
class Activations:
    """[N, C, H, W] in both memory formats, as each backend's convolutions would leave them; scale and shift [C]."""

    x: Tensor
    channels_last: Tensor
    weight: Tensor
    bias: Tensor


class NormActPool(Case):
    name = "norm_act_pool"
    about = "instance norm + ReLU + average pooling of 256x128x32x32, forward"

    def __init__(self, dtype: torch.dtype):
        self.dtype, self.variant = dtype, {}

    def inputs(self, seed: int, device: torch.device, quick: bool) -> Activations:
        shape = (4, 8, 16, 16) if quick else (256, 128, 32, 32)
        x = rng.normal(rng.key(seed, self.name), torch.Size(shape).numel(), device).view(shape).to(self.dtype)
        weight = rng.uniform(rng.key(seed, self.name, "weight"), shape[1], device) + 0.5
        bias = rng.normal(rng.key(seed, self.name, "bias"), shape[1], device)
        return Activations(x, x.contiguous(memory_format=torch.channels_last), weight, bias)

    def shape(self, inputs: Activations) -> dict[str, int | list[int]]:
        return {"x": list(inputs.x.shape)}

    def fastdd(self, inputs: Activations) -> Tensor:
        return ops.norm_act_pool(inputs.channels_last, inputs.weight, inputs.bias, pool="avg")

    def plain(self, inputs: Activations) -> Tensor:
        weight, bias = inputs.weight.to(self.dtype), inputs.bias.to(self.dtype)
        y = F.group_norm(inputs.channels_last, len(weight), weight, bias)
        return F.avg_pool2d(y.relu_(), 2)

    def loop(self, inputs: Activations) -> Tensor:
        """Published code has no loop here, but keeps channels apart."""
        weight, bias = inputs.weight.to(self.dtype), inputs.bias.to(self.dtype)
        return F.avg_pool2d(F.relu(F.group_norm(inputs.x, len(weight), weight, bias), inplace=True), 2)

    def truth(self, inputs: Activations) -> Tensor:
        x = inputs.x.double()
        y = (x - x.mean((2, 3), keepdim=True)) / (x.var((2, 3), unbiased=False, keepdim=True) + 1e-5).sqrt()
        y = y * inputs.weight.double()[:, None, None] + inputs.bias.double()[:, None, None]
        return F.avg_pool2d(y.clamp(min=0), 2)

    def bytes(self, inputs: Activations) -> int:
        return inputs.x.nbytes + inputs.x.nbytes // 4

    def flops(self, inputs: Activations) -> int:
        """Mean, variance, scale and shift, ReLU, pooling."""
        return 8 * inputs.x.numel()


CASES = [NormActPool(torch.float32), NormActPool(torch.bfloat16)]
