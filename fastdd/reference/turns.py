"""Steps of one optimiser that classes take in turn, in plain PyTorch: ground truth, and what CPUs run."""

from torch import Tensor

# PyTorch's defaults, which are the published settings of AdamW.
BETA, EPS = 0.999, 1e-8


def turns_(
    images: Tensor,
    momentum: Tensor,
    second: Tensor | None,
    gradient: Tensor | None,
    lr: Tensor,
    classes: int,
    done: Tensor,
    decay: float,
    weight_decay: float,
) -> None:
    """:func:`fastdd.ops.turns_`."""
    if images.shape != momentum.shape or any(t is not None and t.shape != images.shape for t in (second, gradient)):
        raise ValueError(f"all moments and the gradient must be {list(images.shape)} as the images are")
    if classes < 1 or not images.dim() or len(images) % classes:
        raise ValueError(f"images must be of {classes} classes, as many of each, not {list(images.shape)}")
    each, before = len(images) // classes, int(done)

    def go(rows: slice, number: int) -> None:
        """The move of step ``number``, from 1, by the moments."""
        of, by = images[rows], momentum[rows]
        if second is None:
            of.sub_(by * lr)
            return
        of.mul_(1 - lr * weight_decay)
        scale = (second[rows] / (1 - BETA**number)).sqrt_().add_(EPS)
        of.addcdiv_(by, scale.mul_((1 - decay**number) / -lr))

    if gradient is None:
        for turn in range(classes - 1):
            rows = slice((turn + 1) * each, None)
            momentum[rows].mul_(decay)
            if second is not None:
                second[rows].mul_(BETA)
            go(rows, before + turn + 1)
        return
    for turn in range(classes):
        own = slice(turn * each, (turn + 1) * each)
        momentum[: own.start].mul_(decay)
        momentum[own].mul_(decay).add_(gradient[own], alpha=1.0 if second is None else 1 - decay)
        if second is not None:
            second[: own.start].mul_(BETA)
            second[own].mul_(BETA).addcmul_(gradient[own], gradient[own], value=1 - BETA)
        go(slice(own.stop), before + turn + 1)
