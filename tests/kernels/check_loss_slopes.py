"""Run with TRITON_INTERPRET=1: the kernel of loss_slopes against the reference in float64."""

import torch
import torch.nn.functional as F

from fastdd.kernels import loss_slopes as kernels
from fastdd.ops import loss_slopes
from fastdd.reference import loss_slopes as reference


def plain(logits: torch.Tensor, labels: torch.Tensor, shares: torch.Tensor) -> torch.Tensor:
    """What PyTorch's own cross-entropy gives."""
    leaf = logits.clone().requires_grad_()
    value = (shares * F.cross_entropy(leaf, labels, reduction="none")).sum()
    return torch.autograd.grad(value, leaf)[0]


def close(ours: torch.Tensor, theirs: torch.Tensor, exact: torch.Tensor) -> None:
    """At most twice plain PyTorch's error, or the type's rounding of the largest value where that is more; in float64
    the truth is PyTorch's own, and the values are of the order of 1."""
    error, rounding = (ours - exact).abs().max(), torch.finfo(ours.dtype).eps * exact.abs().max()
    allowed = 1e-15 if ours.dtype == torch.float64 else 2 * torch.maximum((theirs - exact).abs().max(), rounding)
    assert error <= allowed, (ours.dtype, error, allowed)


def main() -> None:
    torch.manual_seed(0)
    for dtype in (torch.float32, torch.float64, torch.bfloat16, torch.float16):
        for columns, ends in ((10, [0, 3, 3, 8]), (300, [0, 5, 8]), (1, [0, 8])):
            logits, offsets = (4 * torch.randn(8, columns)).to(dtype), torch.tensor(ends)
            labels, h = torch.randint(0, columns, (8,)), torch.randn(8, columns).to(dtype)
            weights = torch.tensor([1.0, 2, 0.5, 0, 1, 3, 1, 1])
            for given in (None, weights):
                shares = reference._shares(logits.double(), offsets, given)[:, 0].to(dtype)
                exact = reference.loss_slopes(logits.double(), labels, offsets, given)
                close(kernels.loss_slopes(logits, labels, offsets, given), plain(logits, labels, shares), exact)
                exact = reference.loss_slopes_pull(h.double(), logits.double(), offsets, given)
                theirs = reference.loss_slopes_pull(h, logits, offsets, given)
                close(kernels.loss_slopes_pull(h, logits, offsets, given), theirs, exact)
    # A segment of no weight, and more segments than a block of the search.
    zeros = kernels.loss_slopes(logits, labels, torch.tensor([0, 4, 8]), torch.tensor([0.0] * 4 + [1.0] * 4))
    assert not zeros[:4].any()
    many, labels = torch.randn(300, 3, dtype=torch.float64), torch.arange(300) % 3
    got = kernels.loss_slopes(many, labels, torch.arange(301), None)
    torch.testing.assert_close(got, reference.loss_slopes(many, labels, torch.arange(301), None))
    leaf = many[:4].clone().requires_grad_()

    def slopes(z):
        return loss_slopes(z, labels[:4], torch.tensor([0, 1, 4]), backend="triton")

    assert torch.autograd.gradcheck(slopes, leaf, fast_mode=True)
    assert torch.autograd.gradgradcheck(slopes, leaf, fast_mode=True)
    print("checked")


if __name__ == "__main__":
    main()
