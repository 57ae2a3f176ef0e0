"""Matching of characteristic functions (NCFM): complex exponentials of features; an optimiser stepped by class."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from fastdd.bench.oracles.idc import in_turn
from fastdd.bench.oracles.segments import by_class, class_loss
from fastdd.debias import Segments

SCALE = 300  # as published
_LEAST = 1e-12  # as published: of the term in phase


def distance(real: Tensor, synthetic: Tensor, amplitude: float, phase: float) -> Tensor:
    """Of two characteristic functions, complex [K], as published."""
    lengths = real.abs(), synthetic.abs()
    of_amplitude = (lengths[0] - lengths[1]).square()
    of_phase = 2 * (lengths[0] * lengths[1] - (real * synthetic.conj()).real)
    return (amplitude * of_amplitude + phase * of_phase.clamp(min=_LEAST)).sqrt().mean()


def loss(
    net: nn.Module,
    real: Tensor,
    segments: Segments,
    synthetic: Tensor,
    params: Sequence[Any],
    *,
    t: Tensor,
    amplitude: float = 0.5,
    phase: float = 0.5,
    augmented: Callable[[Tensor, Any], Tensor] = in_turn,
) -> Tensor:
    """The distances of one iteration of all classes.

    Args:
        net: a network with ``embed``.
        t: [C, K, D], the frequencies of every class.
        amplitude, phase: weights of the two differences.
        synthetic: the parts that the network sees, class by class, enlarged and normalised.
        real, segments, params, augmented: as those of :func:`fastdd.bench.oracles.dm.loss`; a class's ``params`` are
            rows, applied in turn.

    Returns:
        Scalar: the sum over classes of the (weighted) distances of their segments, or of the largest of them.
    """

    def phases(images: Tensor, row: Any, frequencies: Tensor) -> Tensor:
        features = net.embed(augmented(images, row))
        return torch.exp(1j * (features / features.norm(dim=1, keepdim=True)) @ frequencies.T.to(torch.complex128))

    total = synthetic.new_zeros(())
    classes = by_class(segments, len(params), synthetic.dtype)
    per_class = zip(classes, synthetic.chunk(len(classes)), params, t, strict=True)
    for of_class, images, row, frequencies in per_class:
        if not of_class:
            continue
        found = phases(images, row, frequencies).mean(0)
        distances = []
        for part in of_class:
            with torch.no_grad():
                waves = phases(real[part.rows], row, frequencies)
                target = (part.weights[:, None] * waves).sum(0)
            distances.append(SCALE * distance(target, found, amplitude, phase))
        total = total + class_loss(of_class, distances, bool(segments.worst))
    return total


def optimise_in_turn(
    images: Tensor,
    gradient_of: Callable[[Tensor, int, int, int], Tensor],
    loss_of: Callable[[int], float],
    *,
    iterations: int,
    rounds: int,
    num_classes: int,
    optimizer: Callable[[list[Tensor]], torch.optim.Optimizer],
    patience: int,
) -> Tensor:
    """Images after so many iterations: one optimiser, one leaf, a ``step()`` a class, round after round.

    Args:
        images: [num_classes * IPC, ...], class-major; left as they are.
        gradient_of: (images, iteration, round, class) -> the gradient of that class's loss in all images.
        loss_of: iteration -> its loss, that the learning rate goes by.
        optimizer: makes one of parameters.
    """
    leaf = images.clone().requires_grad_()
    moving = optimizer([leaf])
    schedule = torch.optim.lr_scheduler.ReduceLROnPlateau(moving, mode="min", factor=0.5, patience=patience)
    for iteration in range(iterations):
        leaf.data = leaf.data.clamp(0, 1)
        for number in range(rounds):
            for label in range(num_classes):
                moving.zero_grad()
                leaf.grad = gradient_of(leaf.detach(), iteration, number, label)
                moving.step()
        schedule.step(loss_of(iteration))
    return leaf.detach()
