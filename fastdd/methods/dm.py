"""Distribution matching (DM; Zhao and Bilen, WACV 2023), for every debias mode.

    L = sum over segments s of || sum_i w_i phi(A(x_i)) - mean_j phi(A(x~_j)) ||^2

with phi the embedding of a fresh random network, A a differentiable Siamese augmentation shared by the real and the
synthetic images of a class, and j over the synthetic images of the segment's class. One segment a class gives DM; one
a (class, group) gives FairDD's L = sum_y sum_a || E_{T_y^a}[phi] - E_{S_y}[phi] ||^2. Sums, not means, as published.
"""

import torch
from torch import Tensor, nn

from fastdd import models, ops
from fastdd.data import DeviceImages
from fastdd.debias import Segments


def couples_samples(net: nn.Module) -> bool:
    """Whether the network's output for an image depends on the rest of its batch (batch norm in training mode)."""
    return any(isinstance(layer, nn.modules.batchnorm._BatchNorm) for layer in net.modules())


@torch.no_grad()
def real_embeddings(
    net: nn.Module, real: DeviceImages, segments: Segments, params: Tensor, precision: str = "fp32"
) -> Tensor:
    """Embeddings of the segments' samples, [M, D], without a gradient; images are read in chunks.

    float32, or bfloat16 for ``precision="bf16"``.

    Networks with batch norm take each class as one batch of its own, as their statistics would otherwise mix classes
    (or chunks).
    """
    dtype = torch.bfloat16 if precision == "bf16" else None
    classes = segments.sample_classes
    if couples_samples(net):
        sizes = torch.bincount(classes, minlength=len(params)).tolist()
    else:
        sizes = models.chunk_size(net, real.pixels, dtype or torch.float32)
    embed = net.embedder(dtype)
    return torch.cat(
        [
            embed(real.read(rows, params, of, dtype=dtype))
            for rows, of in zip(segments.rows.split(sizes), classes.split(sizes), strict=True)
        ]
    )


def target_means(
    net: nn.Module, real: DeviceImages, segments: Segments, params: Tensor, precision: str = "fp32"
) -> Tensor:
    """Weighted mean embedding of every segment, [S, D]; zeros for an empty one. What the loss pulls toward."""
    embeddings = real_embeddings(net, real, segments, params, precision)
    return ops.segment_mean(embeddings, segments.offsets, segments.weights)


def loss(
    net: nn.Module,
    real: DeviceImages,
    segments: Segments,
    synthetic: Tensor,
    params: Tensor,
    precision: str = "fp32",
) -> Tensor:
    """DM's loss of one step, differentiable in the synthetic images.

    Args:
        net: a network with ``embed``; no gradient is taken in its parameters, so they should not require one.
        real: the real images.
        segments: the step's real samples, for C classes.
        synthetic: float32 [C * IPC, channels, H, W], normalised, class-major.
        params: [C, P], augmentation parameters (:mod:`fastdd.ops.augment`), one row a class, shared by its real and
            its synthetic images.
        precision: ``fp32``, or ``bf16`` for the real images' embeddings (mean embeddings within about 1e-3). Their
            means, the synthetic side and its gradient stay float32.

    Returns:
        Scalar: squared L2 distances, summed over embedding dimensions, segments and classes.

    Cost: one forward of the real batch, one forward and one backward to the images of the synthetic set; the number
    of groups adds only rows to one segmented mean. Deterministic.
    """
    num_classes = len(params)
    ipc = len(synthetic) // num_classes
    pulling = real_embeddings(net, real, segments, params, precision)
    classes = torch.arange(num_classes, device=synthetic.device).repeat_interleave(ipc)
    images = ops.augment(synthetic, params, classes)
    if couples_samples(net):
        embeddings = torch.cat([net.embed(of_class) for of_class in images.split(ipc)])
    else:
        embeddings = torch.cat([net.embed(chunk) for chunk in images.split(models.chunk_size(net, images))])
    distances = ops.embedding_match(
        pulling, embeddings, segments.offsets, segments.weights, segments.classes, num_classes
    )
    return segments.total(distances)
