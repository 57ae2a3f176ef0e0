"""The structure of published code: the baseline ``reference-loop``.

What makes it slow is kept, as it is what a user of that code waits for: a network built anew, Python loops over
classes and groups, whole-class permutations, augmentation parameters built element by element, one operation at a time.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastdd.bench.baselines.problem import Problem
from fastdd.bench.oracles import dm
from fastdd.ops import Param, identity_params, pixel_matrix


def draw(strategy: str, seed: int, size: tuple[int, int], device: torch.device | str = "cpu") -> tuple[Tensor, str]:
    """The augmentation that published code draws from a seed for Siamese use: a parameter row [13], and its operation.

    The operation comes from a generator with that seed, every parameter after it from one that is seeded anew with the
    next number; the first element of a draw is used. Colours, shifts, squares and flips are drawn on the images'
    device, scales and angles on the CPU.

    Returns:
        float64 row on the CPU, and a name out of DSA_OPS. A flip that does not happen is an identity row, and so is
        the strategy "none".
    """
    if strategy == "none":
        return identity_params(1, dtype=torch.float64)[0], "flip"
    numbers = iter(range(seed, seed + 5))

    def generator(where: torch.device | str) -> torch.Generator:
        return torch.Generator(where).manual_seed(next(numbers))

    def uniform(where: torch.device | str = device) -> Tensor:
        return torch.rand(1, generator=generator(where), device=where).double()

    def whole(low: int, high: int) -> Tensor:
        return torch.randint(low, high, (1,), generator=generator(device), device=device)

    names = strategy.split("_")
    operation = names[int(torch.randint(0, len(names), (1,), generator=generator("cpu")))]
    return drawn_rows(operation, 1, size, uniform, whole)[0], operation


def draw_in_turn(strategy: str, random: np.random.RandomState, size: tuple[int, int]) -> list[tuple[Tensor, str]]:
    """The augmentation of a batch as IDC draws it: the operations, each as :func:`draw` returns it, in their turn."""
    names = strategy.split("_")
    others = [name for name in names if name not in ("flip", "color", "cutout")]
    turns = [name for name in ("flip", "color") if name in names]
    turns += [others[random.randint(len(others))]] if others else []
    turns += ["cutout"] if "cutout" in names else []

    def uniform(*_: object) -> Tensor:
        return torch.tensor([random.uniform()], dtype=torch.float64)

    def whole(low: int, high: int) -> Tensor:
        return torch.tensor([random.randint(low, high)])

    return [(drawn_rows(name, 1, size, uniform, whole)[0], name) for name in turns]


def draw_each(strategy: str, n: int, size: tuple[int, int], device: torch.device | str = "cpu") -> tuple[Tensor, str]:
    """The augmentation of ``n`` images as published outside of matching: one operation, its parameters drawn for every
    image, from the global generators.

    Returns:
        float64 rows [n, 13] on the CPU, and the operation's name, as for :func:`draw`.
    """
    if strategy == "none":
        return identity_params(n, dtype=torch.float64), "flip"
    names = strategy.split("_")
    operation = names[int(torch.randint(0, len(names), (1,)))]

    def uniform(where: torch.device | str = device) -> Tensor:
        return torch.rand(n, device=where).double()

    def whole(low: int, high: int) -> Tensor:
        return torch.randint(low, high, (n,), device=device)

    return drawn_rows(operation, n, size, uniform, whole), operation


def drawn_rows(
    operation: str,
    n: int,
    size: tuple[int, int],
    uniform: Callable[..., Tensor],
    whole: Callable[[int, int], Tensor],
) -> Tensor:
    """Parameter rows [n, 13] of an operation, from draws of ``n`` numbers each."""
    rows = identity_params(n, dtype=torch.float64)
    height, width = size
    if operation == "color":
        rows[:, Param.BRIGHTNESS], rows[:, Param.SATURATION] = uniform() - 0.5, 2 * uniform()
        rows[:, Param.CONTRAST] = uniform() + 0.5
    elif operation == "crop":
        most = int(height * 0.125 + 0.5), int(width * 0.125 + 0.5)
        rows[:, Param.F], rows[:, Param.C] = whole(-most[0], most[0] + 1), whole(-most[1], most[1] + 1)
    elif operation == "cutout":
        for side, first, last in ((height, Param.TOP, Param.BOTTOM), (width, Param.LEFT, Param.RIGHT)):
            k = int(side * 0.5 + 0.5)
            start = whole(0, side + 1 - k % 2) - k // 2
            rows[:, first], rows[:, last] = start.clamp(min=0), (start + k - 1).clamp(max=side - 1) + 1
    elif operation == "flip":
        flipped = uniform().cpu() < 0.5
        rows[flipped, Param.A], rows[flipped, Param.C] = -1, width - 1
    else:
        theta = torch.zeros(n, 2, 3, dtype=torch.float64)
        if operation == "scale":
            for i in range(2):
                theta[:, i, i] = uniform("cpu") * (1.2 - 1 / 1.2) + 1 / 1.2
        else:
            angle = (uniform("cpu") - 0.5) * 2 * 15 / 180 * np.pi
            theta[:, 0, 0] = theta[:, 1, 1] = angle.cos()
            theta[:, 1, 0] = angle.sin()
            theta[:, 0, 1] = -angle.sin()
        rows[:, :6] = pixel_matrix(theta, size)
    return rows


def augment(x: Tensor, row: Tensor, operation: str) -> Tensor:
    """One DSA operation on ``x`` [N, C, H, W], with the parameters (:class:`fastdd.ops.Param`) of ``row``: [13], or
    [N, 13] with a row an image."""
    n, _, height, width = x.shape
    rows = row.expand(n, -1).to(x.device)

    def of(param: Param) -> Tensor:
        return rows[:, param, None, None]

    if operation == "color":
        brightness, saturation, contrast = (
            of(p)[..., None].to(x.dtype) for p in (Param.BRIGHTNESS, Param.SATURATION, Param.CONTRAST)
        )
        x = x + brightness
        mean = x.mean(dim=1, keepdim=True)
        x = (x - mean) * saturation + mean
        mean = x.mean(dim=(1, 2, 3), keepdim=True)
        return (x - mean) * contrast + mean
    if operation == "crop":
        batch, down, right = torch.meshgrid(
            *(torch.arange(size, device=x.device) for size in (n, height, width)), indexing="ij"
        )
        down = torch.clamp(down + of(Param.F).long() + 1, 0, height + 1)
        right = torch.clamp(right + of(Param.C).long() + 1, 0, width + 1)
        padded = F.pad(x, [1, 1, 1, 1])
        return padded.permute(0, 2, 3, 1).contiguous()[batch, down, right].permute(0, 3, 1, 2).contiguous()
    if operation == "cutout":
        top, bottom, left, right = (of(p).long() for p in (Param.TOP, Param.BOTTOM, Param.LEFT, Param.RIGHT))
        batch, down, across = torch.meshgrid(
            torch.arange(n, device=x.device),
            torch.arange(int((bottom - top).max()), device=x.device),
            torch.arange(int((right - left).max()), device=x.device),
            indexing="ij",
        )
        mask = torch.ones(n, height, width, dtype=x.dtype, device=x.device)
        mask[batch, torch.minimum(top + down, bottom - 1), torch.minimum(left + across, right - 1)] = 0
        return x * mask[:, None]
    if operation == "flip":
        return torch.where(of(Param.A)[..., None] < 0, x.flip(3), x)
    a, b, d, e = (row.expand(n, -1)[:, p].to(x.dtype) for p in (Param.A, Param.B, Param.D, Param.E))
    theta = torch.tensor([[[a[i], b[i], 0], [d[i], e[i], 0]] for i in range(n)], dtype=x.dtype)
    grid = F.affine_grid(theta, x.shape, align_corners=False).to(x.device)
    return F.grid_sample(x, grid, align_corners=False)


def operation_of(row: Tensor) -> str:
    """The DSA operation that a parameter row carries out (an identity row is called a flip)."""
    value = row.tolist()
    if (value[Param.BRIGHTNESS], value[Param.SATURATION], value[Param.CONTRAST]) != (0, 1, 1):
        return "color"
    if value[Param.TOP] < value[Param.BOTTOM]:
        return "cutout"
    if value[Param.B] or value[Param.D]:
        return "rotate"
    if value[Param.A] < 0:
        return "flip"
    if (value[Param.A], value[Param.E]) != (1, 1):
        return "scale"
    return "crop" if value[Param.C] or value[Param.F] else "flip"


def operation_of_each(rows: Tensor) -> str:
    """The operation that rows [N, 13] have in common; some of them may be identities."""
    return next((operation for row in rows if (operation := operation_of(row)) != "flip"), "flip")


# The debias modes that papers or their code write down as a loop.
_MODES = ("none", "fairdd", "kde")


class PublishedLoop:
    """Steps of DM or DM+FairDD as published, on real images that rest as normalised floating point.

    Args:
        problem: what to distil.
        dtype: of all arithmetic.

    Raises:
        ValueError: a debias mode of which nothing is published.
    """

    def __init__(self, problem: Problem, dtype: torch.dtype = torch.float32):
        data, config = problem.dataset, problem.config
        if config.debias not in _MODES:
            raise ValueError(f"there is no published loop for debias {config.debias!r}; one of: {', '.join(_MODES)}")
        self._problem, self._dtype = problem, dtype
        self._real = problem.real(dtype)
        self._rows = [np.flatnonzero(data.train.labels == c) for c in range(data.num_classes)]
        self._random = np.random.RandomState(config.seed)
        self.images = problem.images.to(problem.device, dtype, copy=True).requires_grad_()
        self._sgd = torch.optim.SGD([self.images], lr=config.lr_img, momentum=config.momentum)

    def network(self) -> nn.Module:
        """A network with ``embed``, randomly initialised, on the CPU."""
        return self._problem.network()

    def draw(self, seed: int) -> Any:
        """The augmentation that belongs to a seed, in the form that :meth:`augment` takes."""
        return draw(self._problem.config.dsa_strategy, seed, self._problem.dataset.size)

    def augment(self, x: Tensor, drawn: Any) -> Tensor:
        """``x`` under an augmentation that :meth:`draw` returned."""
        return augment(x, *drawn)

    def network_of_step(self) -> nn.Module:
        """The network that a step matches with: made anew at every step, without gradients of its own."""
        net = self.network().to(self._problem.device).train()
        for parameter in net.parameters():
            parameter.requires_grad = False
        return net

    def step(self) -> Tensor:
        """One iteration; returns its loss."""
        net = self.network_of_step()
        batch = self._problem.config.batch_real
        rows = np.concatenate([self._random.permutation(rows)[:batch] for rows in self._rows])
        drawn = [self.draw(int(self._random.randint(100_000))) for _ in self._rows]
        loss = self.loss(net, torch.as_tensor(rows, device=self._problem.device), drawn)
        self._sgd.zero_grad()
        loss.backward()
        self._sgd.step()
        return loss.detach()

    def gradient(self, net: nn.Module, rows: Tensor, drawn: Sequence) -> tuple[Tensor, Tensor]:
        """Gradient of the images, and loss, of given draws: rows, class by class, and of every class its
        augmentation."""
        loss = self.loss(net, rows, drawn)
        return torch.autograd.grad(loss, self.images)[0], loss.detach()

    def loss(self, net: nn.Module, rows: Tensor, drawn: Sequence) -> Tensor:
        """The loss of given draws: rows, class by class, and of every class its augmentation."""
        segments = self._problem.segments(rows)
        return dm.loss(net, self._real, segments, self.images, drawn, augmented=self.augment)
