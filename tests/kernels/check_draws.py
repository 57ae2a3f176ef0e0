"""Run with TRITON_INTERPRET=1: draws bit for bit those of fastdd.core.rng; augmentation parameters those of PyTorch."""

import torch

from fastdd.core import rng
from fastdd.kernels import draws
from fastdd.ops.dsa import DSA_OPS, _launch_rows, _plain_rows


def main() -> None:
    for number in (0, 1, -5, 2**63 - 1, -(2**63)):
        key = torch.tensor(number)
        for n in (0, 1, 5, 3000) if number == -5 else (5,):
            for keys in (key, rng.plain_lanes(key, 7), rng.plain_lanes(key, 6).view(2, 3)):
                assert torch.equal(draws.lanes(keys, n), rng.plain_lanes(keys, n))
                assert torch.equal(draws.bits(keys, n), rng.plain_bits(keys, n))
                assert torch.equal(draws.uniform(keys, n), rng.plain_uniform(keys, n))
    key, scale, offset = torch.tensor(3), torch.rand(2500), torch.rand(2500)
    out = torch.empty(2500)
    draws.parameters(key, scale, offset, out)
    exact = offset.double() + (2 * rng.plain_uniform(key, 2500).double() - 1) * scale.double()
    torch.testing.assert_close(out.double(), exact, rtol=0, atol=3e-7)

    keys = rng.plain_lanes(torch.tensor(11), 300)
    every = list(range(len(DSA_OPS)))
    for numbers in ([5, 3, 0], every, *([one] for one in every)):
        for size in ((32, 32), (9, 14)) if len(numbers) > 1 else ((9, 14),):
            for shared in (1, 50, 300) if len(numbers) > 1 else (50,):
                for dtype, tolerance in ((torch.float64, 1e-12), (torch.float32, 1e-5)):
                    exact = _plain_rows(keys, numbers, *size, shared, torch.float64)
                    got = _launch_rows(keys, numbers, *size, shared, dtype)
                    torch.testing.assert_close(got.double(), exact, rtol=0, atol=tolerance)
    assert _launch_rows(keys[:0], every, 8, 8, 1, torch.float32).shape == (0, 13)
    print("checked")


if __name__ == "__main__":
    main()
