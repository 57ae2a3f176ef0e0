"""Gradients of segments' cross-entropies in the logits, against PyTorch's own derivative in float64."""

import pytest
import torch
import torch.nn.functional as F
from opchecks import opcheck

from fastdd.ops import loss_slopes

OFFSETS = torch.tensor([0, 2, 2, 5])
LABELS = torch.tensor([0, 2, 1, 1, 0])
WEIGHTS = torch.tensor([1.0, 3.0, 0.5, 0.0, 2.0])


def _logits(dtype=torch.float64) -> torch.Tensor:
    return torch.linspace(-3, 4, 15, dtype=torch.float64).sin().mul(5).view(5, 3).to(dtype)


@pytest.mark.parametrize("weights", [None, WEIGHTS])
def test_they_are_the_derivative_of_the_mean_losses(weights):
    leaf = _logits().requires_grad_()
    losses = F.cross_entropy(leaf, LABELS, reduction="none")
    counts = torch.ones(5).double() if weights is None else weights.double()
    value = sum((counts[a:b] * losses[a:b]).sum() / counts[a:b].sum() for a, b in ((0, 2), (2, 5)))
    expected = torch.autograd.grad(value, leaf)[0]
    torch.testing.assert_close(loss_slopes(leaf.detach(), LABELS, OFFSETS, weights), expected, rtol=1e-14, atol=1e-15)


def test_derivatives():
    def slopes(z):
        return loss_slopes(z, LABELS, OFFSETS, WEIGHTS)

    assert torch.autograd.gradcheck(slopes, _logits().requires_grad_())
    assert torch.autograd.gradgradcheck(slopes, _logits().requires_grad_())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_opcheck(dtype):
    logits = _logits(dtype).requires_grad_()
    opcheck(torch.ops.fastdd.loss_slopes, (logits, LABELS, OFFSETS, WEIGHTS), dtype)
    opcheck(torch.ops.fastdd.loss_slopes_pull, (_logits(dtype), logits, OFFSETS, None), dtype)


def test_strides_no_samples_and_no_weight():
    wide = _logits().repeat(1, 2)
    assert torch.equal(loss_slopes(wide[:, ::2], LABELS, OFFSETS), loss_slopes(wide[:, ::2].clone(), LABELS, OFFSETS))
    assert loss_slopes(_logits()[:0], LABELS[:0], torch.tensor([0, 0])).shape == (0, 3)
    assert not loss_slopes(_logits(), LABELS, OFFSETS, 0 * WEIGHTS).any()


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"logits": LABELS}, TypeError, "logits must be float32"),
        ({"logits": torch.zeros(5)}, ValueError, "logits must be"),
        ({"labels": LABELS[:3]}, ValueError, "labels must be int64"),
        ({"labels": LABELS + 1}, ValueError, "labels"),
        ({"weights": WEIGHTS.clone().requires_grad_()}, ValueError, "not differentiable"),
    ],
)
def test_bad_arguments_are_refused_in_one_line(change, error, words):
    given = {"logits": _logits(), "labels": LABELS, "offsets": OFFSETS, "weights": WEIGHTS, **change}
    with pytest.raises(error, match=words) as refused:
        loss_slopes(**given)
    assert "\n" not in str(refused.value)
