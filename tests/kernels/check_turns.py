"""Run with TRITON_INTERPRET=1: the kernel of turns_ against the reference in float64."""

import torch

from fastdd.ops.turns import turns_
from fastdd.reference import turns as reference


def main() -> None:
    torch.manual_seed(0)
    for dtype in (torch.float32, torch.float64):
        for adam, with_gradient, done, decay in (
            (True, True, 0, 0.5),
            (True, False, 1234, 0.9),
            (False, True, 0, 0.5),
            (False, False, 7, 0.0),
        ):
            start = [torch.rand(6, 3, 40).to(dtype) for _ in range(4)]
            lr, weight_decay = torch.tensor(0.3, dtype=torch.float64), 0.01 if adam else 0.0
            found = []
            for kind in ("kernel", "plain", "exact"):
                images, momentum, second, gradient = (t.double() if kind == "exact" else t.clone() for t in start)
                arguments = images, momentum, second if adam else None, gradient if with_gradient else None, lr, 3, done
                if kind == "kernel":
                    turns_(*arguments, decay=decay, weight_decay=weight_decay, backend="triton")
                else:
                    reference.turns_(*arguments, decay, weight_decay)
                found.append((images, momentum, second))
            for ours, theirs, exact in zip(*found, strict=True):
                rounding = 4 * torch.finfo(dtype).eps * exact.abs().max()
                allowed = 2 * torch.maximum((theirs - exact).abs().max(), rounding)
                assert (ours - exact).abs().max() <= allowed, (dtype, adam, with_gradient)
    print("checked")


if __name__ == "__main__":
    main()
