"""Steps that classes take in turn, against PyTorch's optimisers stepped once a class."""

import pytest
import torch

from fastdd.ops import turns_
from fastdd.ops.turns import _launch

CLASSES, IPC = 3, 2


@pytest.mark.parametrize("kind", ["adamw", "sgd"])
def test_two_halves_are_a_round_of_pytorchs_optimiser(kind):
    start = torch.linspace(-1, 1, CLASSES * IPC * 5, dtype=torch.float64).view(CLASSES * IPC, 5)
    lr = torch.tensor(0.1, dtype=torch.float64)
    images, momentum = start.clone(), torch.zeros_like(start)
    second = torch.zeros_like(start) if kind == "adamw" else None
    leaf = start.clone().requires_grad_()
    if kind == "adamw":
        optimiser, decays = torch.optim.AdamW([leaf], 0.1, betas=(0.5, 0.999), weight_decay=0.01), (0.5, 0.01)
    else:
        optimiser, decays = torch.optim.SGD([leaf], 0.1, momentum=0.5), (0.5, 0.0)
    for number in range(2):
        arguments = images, momentum, second
        options = {"decay": decays[0], "weight_decay": decays[1]}
        turns_(*arguments, None, lr, CLASSES, CLASSES * number, **options)
        turns_(*arguments, images.sin(), lr, CLASSES, CLASSES * number, **options)
        for turn in range(CLASSES):
            own = slice(turn * IPC, (turn + 1) * IPC)
            leaf.grad = torch.zeros_like(leaf)
            leaf.grad[own] = leaf.detach()[own].sin()
            optimiser.step()
    torch.testing.assert_close(images, leaf.detach(), rtol=1e-12, atol=1e-13)


def test_opcheck():
    given = [torch.rand(4, 2) for _ in range(4)]
    torch.library.opcheck(
        torch.ops.fastdd.turns_.default, (*given, torch.tensor(0.1, dtype=torch.float64), 2, torch.tensor(3), 0.5, 0.1)
    )


def test_the_kernel_has_no_derivative_and_says_so():
    images = torch.zeros(2, 1, requires_grad=True)
    with pytest.raises(RuntimeError, match="no derivative"):
        _launch(images, images, None, None, torch.tensor(0.1, dtype=torch.float64), 2, 0, 0.5, 0.0)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"images": torch.zeros(4, 2).half()}, "images must be"),
        ({"momentum": torch.zeros(3, 2)}, "moments and gradient must be"),
        ({"lr": torch.tensor(0.1)}, "lr must be"),
        ({"classes": 3}, "images must be of 3 classes"),
        ({"done": -1}, "done must be"),
        ({"done": torch.tensor(0.0)}, "done must be an int64 scalar"),
    ],
)
def test_bad_arguments_are_refused_in_one_line(change, words):
    zeros = torch.zeros(4, 2)
    given = {
        **{"images": zeros, "momentum": zeros, "second": None, "gradient": None, "classes": 2, "done": 0},
        **{"lr": torch.tensor(0.1, dtype=torch.float64)},
        **change,
    }
    with pytest.raises(ValueError, match=words) as refused:
        turns_(**given, decay=0.5)
    assert "\n" not in str(refused.value)
