"""3x3 convolution, forward and with its gradients: what training a ConvNet spends its time on."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from fastdd import ops
from fastdd.bench.framework.case import Case, Result
from fastdd.core import rng


@dataclass(frozen=True)
class Convolved:
    """x [N, C, H, W] and the output's gradient g in both memory formats, as the layers around would leave them."""

    x: Tensor
    g: Tensor
    x_last: Tensor
    g_last: Tensor
    filters: Tensor


class Conv3x3(Case):
    def __init__(self, backward: bool):
        self.backward, self.variant = backward, {}
        self.name = "conv3x3/train" if backward else "conv3x3/forward"
        self.about = "convolution of 64x128x16x16, " + ("forward, data and weight gradients" if backward else "forward")

    def inputs(self, seed: int, device: torch.device, quick: bool) -> Convolved:
        shape = (4, 16, 8, 8) if quick else (64, 128, 16, 16)
        x, g = (
            rng.normal(rng.key(seed, "conv3x3", name), torch.Size(shape).numel(), device).view(shape) for name in "xg"
        )
        channels = shape[1]
        filters = rng.normal(rng.key(seed, "conv3x3", "filters"), channels * channels * 9, device)
        filters = filters.view(channels, channels, 3, 3) / (9 * channels) ** 0.5
        last = torch.channels_last
        return Convolved(x, g, x.contiguous(memory_format=last), g.contiguous(memory_format=last), filters)

    def shape(self, inputs: Convolved) -> dict[str, int | list[int]]:
        return {"x": list(inputs.x.shape), "filters": list(inputs.filters.shape)}

    def _run(self, convolve, x: Tensor, filters: Tensor, g: Tensor) -> Result:
        if not self.backward:
            with torch.no_grad():
                return convolve(x, filters)
        leaves = [t.detach().requires_grad_() for t in (x, filters)]
        y = convolve(*leaves)
        return y.detach(), *torch.autograd.grad(y, leaves, g)

    def fastdd(self, inputs: Convolved) -> Result:
        return self._run(ops.conv3x3, inputs.x_last, inputs.filters, inputs.g_last)

    def plain(self, inputs: Convolved) -> Result:
        filters = inputs.filters.contiguous(memory_format=torch.channels_last)
        return self._run(lambda x, w: F.conv2d(x, w, padding=1), inputs.x_last, filters, inputs.g_last)

    def loop(self, inputs: Convolved) -> Result:
        """Published code has no loop here, but keeps channels apart."""
        return self._run(lambda x, w: F.conv2d(x, w, padding=1), inputs.x, inputs.filters, inputs.g)

    def truth(self, inputs: Convolved) -> Result:
        def convolve(x, w):
            n, _, height, width = x.shape
            return (w.flatten(1) @ F.unfold(x, 3, padding=1)).view(n, -1, height, width)

        return self._run(convolve, inputs.x.double(), inputs.filters.double(), inputs.g.double())

    def bytes(self, inputs: Convolved) -> int:
        # Forward: x, filters, y. Backward: x, filters and g once more, both gradients.
        images, filters = inputs.x.nbytes, inputs.filters.nbytes
        return 5 * images + 3 * filters if self.backward else 2 * images + filters

    def flops(self, inputs: Convolved) -> int:
        """Those of Winograd's products for 2x2 tiles, 4 a pixel and pair of channels; a direct convolution takes 9."""
        n, channels, height, width = inputs.x.shape
        return (3 if self.backward else 1) * 2 * 4 * n * height * width * channels**2


CASES = [Conv3x3(False), Conv3x3(True)]
