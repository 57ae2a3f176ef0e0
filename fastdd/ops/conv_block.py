"""A whole block of ConvNet for images whose gradient nobody needs: what the real side of a matching step runs."""

import functools
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor
from torch._subclasses.fake_tensor import unset_fake_temporarily

from fastdd.core import ext as _ext
from fastdd.ops import _dispatch
from fastdd.ops.conv3x3 import conv3x3, split_takes, why_not_split
from fastdd.ops.norm_act_pool import check_affine, norm_act_pool
from fastdd.reference import conv_block as reference

_KERNELS = {"cpu": "native", "cuda": "triton"}
_CPU = torch.device("cpu")


def _triton(name: str, *arguments):
    from fastdd.kernels import conv3x3 as kernels

    return getattr(kernels, name)(*arguments)


def _launch_pack(filters: Tensor, columns: int) -> Tensor:
    return _triton("pack_filters", filters) if split_takes(filters) else reference.pack_filters(filters, columns)


def _launch(
    x: Tensor, filters: Tensor, packed: Tensor, weight: Tensor, bias: Tensor, padding: int, eps: float, pool: str
) -> Tensor:
    if not (split_takes(filters) and _triton("holds", *x.shape[1:3], padding)):
        return reference.conv_block(x, filters, packed, weight, bias, padding, eps, pool)
    return _triton("conv_block", x, filters, packed, weight, bias, eps, pool)


_PACK = _dispatch.define("pack_filters(Tensor filters, int columns) -> Tensor", reference.pack_filters, _KERNELS)
_BLOCK = _dispatch.define(
    "conv_block(Tensor x, Tensor filters, Tensor packed, Tensor weight, Tensor bias, int padding, float eps, str pool)"
    " -> Tensor",
    reference.conv_block,
    _KERNELS,
)
_PACK_BF16 = _dispatch.define(
    "pack_filters_bf16(Tensor filters) -> Tensor", reference.pack_filters_bf16, {"cpu": "native"}
)
_BLOCK_BF16 = _dispatch.define(
    "conv_block_bf16(Tensor x, Tensor filters, Tensor packed, Tensor weight, Tensor bias, int padding, float eps,"
    " str pool) -> Tensor",
    reference.conv_block_bf16,
    {"cpu": "native"},
)


@functools.cache
def why_no_bf16_products() -> str:
    """Why bfloat16 images are convolved by PyTorch on this CPU; empty if the kernels for them can run."""
    active = _ext.build_info().get("simd_active")
    return "" if active == "avx512bf16" else f"they need AVX-512 BF16, and the SIMD level here is {active}"


_dispatch.register_triton(_PACK, _launch_pack)
_dispatch.register_triton(_BLOCK, _launch)
for _name in (_PACK, _BLOCK):
    _dispatch.only_when(_name, "cuda", why_not_split)
for _name in (_PACK_BF16, _BLOCK_BF16):
    _dispatch.only_when(_name, "cpu", why_no_bf16_products)


def _pack_fake(filters, columns):
    if filters.device.type == "cuda":
        outputs, inputs = filters.shape[:2]
        taken = _dispatch.has_triton() and split_takes(filters)
        return filters.new_empty((3, 3, 3, inputs, outputs), dtype=torch.bfloat16) if taken else filters.new_empty(0)
    # How large it is, the kernels of this processor decide: they are asked, with real filters.
    with unset_fake_temporarily():
        packed = torch.ops.fastdd.pack_filters(torch.zeros([int(size) for size in filters.shape]), columns)
    return filters.new_empty(packed.numel())


_dispatch.register_fake(_PACK, _pack_fake)
for _name in (_PACK, _BLOCK, _PACK_BF16, _BLOCK_BF16):
    _dispatch.register_no_autograd(_name)


def tile_columns(inputs: int, height: int, width: int, padding: int) -> int:
    """Columns of pixels of the tiles, two rows high, in which a CPU's block computes its convolution; 0: directly.

    As how_of_block in csrc/conv_block_cpu.h, which refuses filters packed for another.
    """
    if inputs < 16 or padding != 1:
        return 0
    wide, narrow = 24 * -(-width // 4), 16 * -(-width // 2)
    return 4 if inputs >= 64 and min(height, width) >= 7 and 10 * wide <= 9 * narrow else 2


class ConvBlock:
    """3x3 convolution, instance norm, ReLU and 2x2 pooling, forward only, with filters prepared once for many calls.

    ``y = norm_act_pool(conv2d(x, filters, padding=padding), weight, bias)``. The convolution's bias is left out: the
    norm subtracts every channel's mean, and the bias with it.

    On the CPU, in float32, the C++ kernel keeps an image's activations in the core's cache from the convolution to the
    pooled result. Convolutions of at least 16 channels with padding 1 are computed by Winograd's F(2x2, 3x3) (Lavin and
    Gray, CVPR 2016), in float32, with 2.25 times fewer multiplications, from 64 channels on by F(2x4, 3x3), with 3
    times fewer, as :func:`fastdd.ops.conv3x3` does; others directly.

    In bfloat16, on CPUs with AVX-512 BF16, products of two bfloat16 numbers are summed in float32, twice as many at a
    time. From 16 channels on, with padding 1, they are Winograd's: transforms in float32, of float32 filters where
    those are given, and both sides rounded once. Filters of the frequency with the mean of a patch are two bfloat16
    numbers, and directly (below 16 channels) a tap gets what rounding takes from the one before: rounded filters are
    what moves all images, and mean embeddings, the same way. Norm, ReLU and pooling are in float32.

    On GPUs, where :func:`fastdd.ops.conv3x3`'s Triton kernels are chosen, a program of one kernel holds whole images of
    up to 16x16 pixels. Everything else (other dtypes, no extension) is the convolution followed by
    :func:`norm_act_pool`.

    Args:
        filters: [O, I, 3, 3].
        weight, bias: [O], the norm's.
        padding: zeros around the image.
        eps: added to the variance.
        pool: ``avg``, ``max`` or ``none``.
        dtype: of the images and the result; None: the filters'.
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
        dtype: torch.dtype | None = None,
        copy: bool = True,
        backend: str = "auto",
    ):
        if filters.dim() != 4 or filters.shape[2:] != (3, 3):
            raise ValueError(f"filters must be [O, I, 3, 3], not {list(filters.shape)}")
        check_affine(weight, bias, filters.shape[0], filters.device)
        self._filters, self._weight, self._bias = (
            t.detach().clone() if copy else t.detach() for t in (filters, weight, bias)
        )
        self._padding, self._eps, self.pool = padding, eps, pool
        self._packed: dict[int, Tensor] = {}
        self._backend, self._dtype = backend, dtype or filters.dtype
        chosen = _dispatch.choose("conv_block", backend, filters.device)
        self._interpreted = chosen == "interpret"
        own = chosen == "dispatch" and _dispatch.has_kernel("conv_block", filters.device)
        self._half = own and filters.device.type == "cpu" and self._takes_half()
        self._filters = self._filters.to(torch.float32 if self._half else self._dtype)
        self._native = own and filters.device.type == "cpu" and self._dtype == torch.float32
        self._by_parts = self._interpreted or (own and filters.device.type == "cuda")
        self._by_parts = self._by_parts and split_takes(self._filters)
        if self._native or self._half or self._by_parts:  # as norm_act_pool takes them
            self._weight, self._bias = self._weight.float(), self._bias.float()

    @property
    def fused(self) -> bool:
        """Whether a CPU kernel keeps what is between the images and the result in the core's cache."""
        return self._native or self._half

    @_dispatch.public
    @torch.no_grad()
    def __call__(self, x: Tensor) -> Tensor:
        """y [N, O, H', W'] of x [N, I, H, W], in channels-last memory."""
        if x.dim() != 4 or x.shape[1] != self._filters.shape[1]:
            raise ValueError(f"x must be [N, {self._filters.shape[1]}, H, W], not {list(x.shape)}")
        if x.dtype != self._dtype:
            raise TypeError(f"x is {x.dtype} and the filters are {self._dtype}: convert one of them")
        if self._half:
            return self._half_block(x)
        _, inputs, height, width = x.shape
        if not (self._native or (self._by_parts and _triton("holds", height, width, self._padding))):
            if self._by_parts and self._padding == 1:
                z = conv3x3(x, self._filters, backend=self._backend)
            else:
                z = F.conv2d(x, self._filters, padding=self._padding)
            return norm_act_pool(z, self._weight, self._bias, eps=self._eps, pool=self.pool, backend=self._backend)
        columns = tile_columns(inputs, height, width, self._padding)
        if columns not in self._packed:
            self._packed[columns] = self._op("pack_filters")(self._filters, columns)
        return self._run("conv_block", x, self._packed[columns])

    def _takes_half(self) -> bool:
        """Whether the kernels for bfloat16 images run, and take these filters."""
        chosen = self._dtype == torch.bfloat16 and _dispatch.choose("conv_block_bf16", self._backend, _CPU)
        return chosen == "dispatch" and not (self._filters.shape[1] >= 16 and self._padding != 1)

    def _half_block(self, x: Tensor) -> Tensor:
        if not self._packed:
            self._packed[0] = torch.ops.fastdd.pack_filters_bf16(self._filters)
        return self._run("conv_block_bf16", x, self._packed[0])

    def _run(self, op: str, x: Tensor, packed: Tensor) -> Tensor:
        y = self._op(op)(
            x.permute(0, 2, 3, 1),
            self._filters,
            packed,
            self._weight,
            self._bias,
            self._padding,
            self._eps,
            self.pool,
        )
        return y.permute(0, 3, 1, 2)

    def _op(self, name: str) -> Callable:
        return _dispatch.interpreted(name) if self._interpreted else getattr(torch.ops.fastdd, name)
