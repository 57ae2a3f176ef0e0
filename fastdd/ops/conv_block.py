"""A whole block of ConvNet for images whose gradient nobody needs: what the real side of a matching step runs."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor
from torch._subclasses.fake_tensor import unset_fake_temporarily

from fastdd.ops import _dispatch
from fastdd.ops.conv3x3 import conv3x3, split_takes, why_not_split
from fastdd.ops.norm_act_pool import check_affine, norm_act_pool
from fastdd.reference import conv_block as reference

_KERNELS = {"cpu": "native", "cuda": "triton"}


def _triton(name: str, *arguments):
    from fastdd.kernels import conv3x3 as kernels

    return getattr(kernels, name)(*arguments)


def _launch_pack(filters: Tensor, winograd: bool) -> Tensor:
    return _triton("pack_filters", filters) if split_takes(filters) else reference.pack_filters(filters, winograd)


def _launch(
    x: Tensor, filters: Tensor, packed: Tensor, weight: Tensor, bias: Tensor, padding: int, eps: float, pool: str
) -> Tensor:
    if not (split_takes(filters) and _triton("holds", *x.shape[1:3], padding)):
        return reference.conv_block(x, filters, packed, weight, bias, padding, eps, pool)
    return _triton("conv_block", x, filters, packed, weight, bias, eps, pool)


_PACK = _dispatch.define("pack_filters(Tensor filters, bool winograd) -> Tensor", reference.pack_filters, _KERNELS)
_BLOCK = _dispatch.define(
    "conv_block(Tensor x, Tensor filters, Tensor packed, Tensor weight, Tensor bias, int padding, float eps, str pool)"
    " -> Tensor",
    reference.conv_block,
    _KERNELS,
)
_dispatch.register_triton(_PACK, _launch_pack)
_dispatch.register_triton(_BLOCK, _launch)
for _name in (_PACK, _BLOCK):
    _dispatch.only_when(_name, "cuda", why_not_split)


def _pack_fake(filters, winograd):
    if filters.device.type == "cuda":
        outputs, inputs = filters.shape[:2]
        taken = _dispatch.has_triton() and split_takes(filters)
        return filters.new_empty((3, 3, 3, inputs, outputs), dtype=torch.bfloat16) if taken else filters.new_empty(0)
    # How large it is, the kernels of this processor decide: they are asked, with real filters.
    with unset_fake_temporarily():
        packed = torch.ops.fastdd.pack_filters(torch.zeros([int(size) for size in filters.shape]), winograd)
    return filters.new_empty(packed.numel())


_dispatch.register_fake(_PACK, _pack_fake)
_dispatch.register_no_autograd(_PACK)
_dispatch.register_no_autograd(_BLOCK)


class ConvBlock:
    """3x3 convolution, instance norm, ReLU and 2x2 pooling, forward only, with filters prepared once for many calls.

    ``y = norm_act_pool(conv2d(x, filters, padding=padding), weight, bias)``. The convolution's bias is left out: the
    norm subtracts every channel's mean, and the bias with it.

    On the CPU, in float32, the C++ kernel keeps an image's activations in the core's cache from the convolution to the
    pooled result. Convolutions of at least 16 channels with padding 1 and even sides are computed by Winograd's
    F(2x2, 3x3) (Lavin and Gray, CVPR 2016), in float32, with 2.25 times fewer multiplications; others directly.
    On GPUs, where :func:`fastdd.ops.conv3x3`'s Triton kernels are chosen, a program of one kernel holds whole images of
    up to 16x16 pixels. Everything else (other dtypes, no extension) is the convolution followed by
    :func:`norm_act_pool`.

    Args:
        filters: [O, I, 3, 3].
        weight, bias: [O], the norm's.
        padding: zeros around the image.
        eps: added to the variance.
        pool: ``avg``, ``max`` or ``none``.
        copy: whether a later change of filters, weight or bias is not seen; without a copy there must be none.
        backend: ``auto``, ``native`` (C++, CPU), ``triton`` (GPU) or ``reference``; FASTDD_BACKEND sets what ``auto``
            means.

    Raises:
        ValueError, TypeError: filters that are not [O, I, 3, 3]; images that do not fit them.
        RuntimeError: a backend asked for by name that can't run here.

    No derivative. Two runs are bitwise equal, and do not depend on the number of threads.

    >>> x = torch.arange(16.0).view(1, 1, 4, 4)
    >>> block = ConvBlock(torch.ones(1, 1, 3, 3), torch.ones(1), torch.zeros(1))
    >>> block(x).shape
    torch.Size([1, 1, 2, 2])
    """

    @_dispatch.public
    def __init__(
        self,
        filters: Tensor,
        weight: Tensor,
        bias: Tensor,
        *,
        padding: int = 1,
        eps: float = 1e-5,
        pool: str = "avg",
        copy: bool = True,
        backend: str = "auto",
    ):
        if filters.dim() != 4 or filters.shape[2:] != (3, 3):
            raise ValueError(f"filters must be [O, I, 3, 3], not {list(filters.shape)}")
        check_affine(weight, bias, filters.shape[0], filters.device)
        self._filters, self._weight, self._bias = (
            t.detach().clone() if copy else t.detach() for t in (filters, weight, bias)
        )
        self._padding, self._eps, self._pool = padding, eps, pool
        self._packed: dict[bool, Tensor] = {}
        self._backend = backend
        chosen = _dispatch.choose("conv_block", backend, filters.device)
        self._interpreted = chosen == "interpret"
        own = chosen == "dispatch" and _dispatch.has_kernel("conv_block", filters.device)
        self._native = own and filters.device.type == "cpu" and filters.dtype == torch.float32
        self._by_parts = self._interpreted or (own and filters.device.type == "cuda")
        self._by_parts = self._by_parts and split_takes(self._filters)
        if self._native or self._by_parts:  # as norm_act_pool takes them
            self._weight, self._bias = self._weight.float(), self._bias.float()

    @_dispatch.public
    @torch.no_grad()
    def __call__(self, x: Tensor) -> Tensor:
        """y [N, O, H', W'] of x [N, I, H, W], in channels-last memory."""
        if x.dim() != 4 or x.shape[1] != self._filters.shape[1]:
            raise ValueError(f"x must be [N, {self._filters.shape[1]}, H, W], not {list(x.shape)}")
        if x.dtype != self._filters.dtype:
            raise TypeError(f"x is {x.dtype} and the filters are {self._filters.dtype}: convert one of them")
        _, inputs, height, width = x.shape
        if not (self._native or (self._by_parts and _triton("holds", height, width, self._padding))):
            if self._by_parts and self._padding == 1:
                z = conv3x3(x, self._filters, backend=self._backend)
            else:
                z = F.conv2d(x, self._filters, padding=self._padding)
            return norm_act_pool(z, self._weight, self._bias, eps=self._eps, pool=self._pool, backend=self._backend)
        # As conv_block_takes_winograd in csrc/conv_block_cpu.h, which refuses filters packed for the other way.
        winograd = inputs >= 16 and self._padding == 1 and height % 2 == 0 and width % 2 == 0
        if winograd not in self._packed:
            self._packed[winograd] = self._op("pack_filters")(self._filters, winograd)
        y = self._op("conv_block")(
            x.permute(0, 2, 3, 1),
            self._filters,
            self._packed[winograd],
            self._weight,
            self._bias,
            self._padding,
            self._eps,
            self._pool,
        )
        return y.permute(0, 3, 1, 2)

    def _op(self, name: str) -> Callable:
        return _dispatch.interpreted(name) if self._interpreted else getattr(torch.ops.fastdd, name)
