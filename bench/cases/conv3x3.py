"""3x3 convolution, forward and with its gradients: what training a ConvNet spends its time on."""

import functools
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

    def chunks(self, images: int) -> "list[Convolved]":
        """At most so many images each."""
        parts = (t.split(images) for t in (self.x, self.g, self.x_last, self.g_last))
        return [Convolved(*part, self.filters) for part in zip(*parts, strict=True)]


class Conv3x3(Case):
    size = (64, 128, 16, 16)

    def __init__(self, backward: bool):
        self.backward, self.variant = backward, {}
        self.name = "conv3x3/train" if backward else "conv3x3/forward"
        self.about = self._about()

    def _about(self) -> str:
        passes = "forward, data and weight gradients" if self.backward else "forward"
        return f"convolution of {'x'.join(map(str, self.size))}, {passes}"

    def inputs(self, seed: int, device: torch.device, quick: bool) -> Convolved:
        shape = (4, 16, *(side // 2 for side in self.size[2:])) if quick else self.size
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


class SplitConv3x3(Conv3x3):
    """The Triton kernels by name, which ``auto`` takes only where they are chosen, beside cuDNN: of a matching step's
    real side, the second and the third block of ConvNet."""

    by_name = True  # there are such kernels on GPUs only

    def __init__(self, side: int, backward: bool):
        self.size = (2560, 128, side, side)
        super().__init__(backward)
        self.name, self.variant = f"conv3x3/bf16x3/{'train' if backward else 'forward'}", {"side": side}
        self.about = f"{self._about()}, on bfloat16 parts: needs a GPU"

    def fastdd(self, inputs: Convolved) -> Result:
        convolve = functools.partial(ops.conv3x3, backend="triton")
        return self._run(convolve, inputs.x_last, inputs.filters, inputs.g_last)

    def truth(self, inputs: Convolved) -> Result:
        """By unfolding as many images at a time as take 2 GB."""
        return _joined(
            [super(SplitConv3x3, self).truth(some) for some in inputs.chunks(2**31 // (9 * inputs.x[0].nbytes * 2))]
        )

    def flops(self, inputs: Convolved) -> int:
        """Of a direct convolution, which is what the parts' products are."""
        return super().flops(inputs) // 4 * 9

    def split_flops(self, inputs: Convolved) -> int:
        """All."""
        return self.flops(inputs)


def _joined(results: list[Result]) -> Result:
    """Of results of some images each: images side by side, the filters' gradients summed."""
    if isinstance(results[0], Tensor):
        return torch.cat(results)
    y, to_x, to_filters = zip(*results, strict=True)
    return torch.cat(y), torch.cat(to_x), torch.stack(to_filters).sum(0)


CASES = [
    Conv3x3(False),
    Conv3x3(True),
    *(SplitConv3x3(side, backward) for backward in (False, True) for side in (16, 8)),
]
