"""Gradient matching (DC; Zhao, Mopuri and Bilen, ICLR 2021) and, with Siamese augmentation, DSA (Zhao and Bilen,
ICML 2021), for every debias mode.

    L = sum over segments s of D( sum_i w_i grad l(A(x_i), y_s), mean_j grad l(A(x~_j), y_s) )

with l the cross-entropy, grad with respect to the network's weights, A an augmentation shared by the real and the
synthetic images of a class (DSA; none for DC), j over the synthetic images of the segment's class, and D a distance of
:func:`fastdd.ops.gradient_match`. One segment a class gives DC, one a (class, group) gives FairDD, the weights of KDE
reweighting give its DSA form, W * grad l (eq. 4). The network is trained on the synthetic images between steps.
"""

import copy
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from fastdd import ops
from fastdd._malloc import give_back_growth
from fastdd.data import DeviceImages
from fastdd.debias import Segments

# Real gradients held at a time, in bytes. On CPUs those of six groups of a ConvNet with 320,010 parameters, so that
# a hundred groups take hardly more memory than one; on GPUs those of 200, where launches cost more than memory.
_GRADIENT_BYTES = {"cpu": 8 * 2**20, "cuda": 256 * 2**20}
# The published loops: IPC -> (matching steps an iteration, epochs of training between two of them).
_LOOPS = {1: (1, 1), 10: (10, 50), 20: (20, 25), 30: (30, 20), 40: (40, 15), 50: (50, 10)}
_LOOPS_ABOVE_50 = (100, 10)  # FairDD's
_BUDGET = 500  # matching steps times epochs, about the same in every published row up to IPC 50


def loops(ipc: int) -> tuple[int, int]:
    """Matching steps an iteration, and epochs of the network's training after each but the last.

    The published values (``get_loops``) where there are any, FairDD's above 50; between them, IPC steps with as many
    epochs as keep the total of the published rows, at most the 50 of IPC 10.

    >>> loops(10), loops(25), loops(5), loops(100)
    ((10, 50), (25, 20), (5, 50), (100, 10))
    """
    if ipc > max(_LOOPS):
        return _LOOPS_ABOVE_50
    return _LOOPS.get(ipc) or (ipc, min(50, round(_BUDGET / ipc)))


def loss_and_gradient(
    net: nn.Module,
    real: DeviceImages,
    segments: Segments,
    synthetic: Tensor,
    params: Tensor,
    *,
    metric: str = "ours",
    precision: str = "fp32",
    first_class: int = 0,
    at_once: int | None = None,
) -> tuple[Tensor, Tensor]:
    """The loss of one matching step and its gradient in the synthetic images; the network's weights are constants.

    The second derivative is taken only of the weights' gradients with respect to the images: the distance gives a
    gradient v in the synthetic weight gradients s (first order), and d L / d images is v applied to d s / d images.

    Args:
        net: logits of images; layers that couple samples (batch norm) must be in evaluation mode
            (:func:`calibrate_norms`). Its parameters' ``requires_grad`` is not read.
        real: the real images.
        segments: the step's real samples, for C classes, the same number of segments for each.
        synthetic: float [C * IPC, channels, H, W], normalised, class-major.
        params: [C, P], augmentation parameters (:mod:`fastdd.ops.augment`), one row a class, shared by its real and
            its synthetic images.
        metric: ``ours`` (the rows' cosines), ``mse`` or ``cos``; the latter two match biases and norms too.
        precision: ``fp32``, or ``bf16`` for the real images' forward and backward pass; gradients are summed and
            matched in float32.
        first_class: the network's output of the first of the C classes; the others' follow.
        at_once: classes at a time, which bounds memory; None: all.

    Returns:
        Scalar loss (a sum over segments, not a mean, as published) and its gradient, of the synthetic images' shape.

    Cost: one forward and backward of the real batch, whatever the number of groups; one forward, backward and second
    backward of the synthetic set. Memory: a chunk of real images, the real gradients of the segments at hand (at most
    8 MiB on CPUs and 256 MiB on GPUs, or those of one segment), and the graph of the synthetic images at hand. Two runs
    are bitwise equal; the results of other numbers of classes at a time are to rounding.
    """
    num_classes = len(params)
    ipc = len(synthetic) // num_classes
    of_real, dtype = net, None
    if precision == "bf16":
        of_real, dtype = copy.deepcopy(net).to(torch.bfloat16), torch.bfloat16
    parameters = "weights" if metric == "ours" else "all"
    # Filled in place: what outlives the temporaries around it would break malloc's heap up.
    gradient, found = torch.empty_like(synthetic), []
    for first, last, own in segments.by_classes(num_classes, at_once or num_classes):
        classes = torch.arange(last - first, device=synthetic.device).repeat_interleave(ipc)
        own_params, to_label = params[first:last], first_class + first
        with torch.enable_grad():
            images = synthetic[first * ipc : last * ipc].detach().requires_grad_()
            graphs = ops.group_grad(
                net,
                ops.augment(images, own_params, classes),
                classes + to_label,
                torch.arange(last - first + 1, device=classes.device) * ipc,
                parameters=parameters,
                create_graph=True,
            ).values()
        pulled = [g.detach().requires_grad_() for g in graphs]
        pulls = [torch.zeros_like(p) for p in pulled]
        for here in _affordable(own, sum(p[0].nbytes for p in pulled), synthetic.device):
            some = here.to(synthetic.device)
            of_samples = some.sample_classes
            pulling = ops.group_grad(
                of_real,
                real.read(some.rows, own_params, of_samples, dtype=dtype),
                of_samples + to_label,
                some.offsets,
                some.weights,
                parameters=parameters,
            ).values()
            with torch.enable_grad():
                distances = ops.gradient_match([*pulling], pulled, some.classes, metric=metric, present=some.present)
                total = some.total(distances)
            found.append(distances.detach())
            for pull, more in zip(pulls, torch.autograd.grad(total, pulled, materialize_grads=True), strict=True):
                pull += more
        gradient[first * ipc : last * ipc] = torch.autograd.grad([*graphs], images, pulls)[0]
        give_back_growth()
    return segments.to(synthetic.device).total(torch.cat(found)), gradient


def _affordable(segments: Segments, bytes_each: int, device: torch.device) -> Iterator[Segments]:
    """The segments, as many at a time as their gradients may take; all where their distances are compared."""
    most = max(1, _GRADIENT_BYTES[device.type] // bytes_each)
    if segments.worst or len(segments.classes) <= most:
        yield segments
        return
    for first in range(0, len(segments.classes), most):
        yield segments.part(first, min(first + most, len(segments.classes)))


@torch.no_grad()
def calibrate_norms(net: nn.Module, real: DeviceImages, rows: Tensor) -> None:
    """Batch norms as published: running statistics from one real batch in training mode, then frozen.

    Samples are then independent of one another. ``net`` is left in training mode but for its batch norms.

    Args:
        net: the network.
        real: the real images.
        rows: int64 [M], the batch, without augmentation (published: 16 images a class).
    """
    net.train()
    net(real.read(rows))
    for layer in net.modules():
        if isinstance(layer, nn.modules.batchnorm._BatchNorm):
            layer.eval()
