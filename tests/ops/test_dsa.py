import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from fastdd.core import rng
from fastdd.ops.augment import Param, augment, identity_params
from fastdd.ops.dsa import DSA_OPS, DSA_STRATEGY, diff_augment, dsa_params, parse_strategy, pixel_matrix

N = 20_000


def draw(op, size=(32, 32), n=N, **options):
    return dsa_params(op, rng.lanes(rng.key(0, "test"), n), size, dtype=torch.float64, **options)


def assert_uniform(values, low, high):
    """Kolmogorov and Smirnov's distance to the uniform distribution, at a level of about 1e-6."""
    assert values.min() >= low
    assert values.max() <= high
    ranks = torch.arange(1, len(values) + 1, dtype=torch.float64) / len(values)
    distance = ((values.double().sort().values - low) / (high - low) - ranks).abs().max()
    assert distance < 2.7 / math.sqrt(len(values))


def assert_equally_likely(values, expected):
    seen, counts = values.unique(return_counts=True)
    assert seen.tolist() == expected
    mean = len(values) / len(expected)
    assert (counts - mean).abs().max() < 5 * math.sqrt(mean)


def test_color_has_the_published_ranges():
    p = draw("color")
    assert_uniform(p[:, Param.BRIGHTNESS], -0.5, 0.5)
    assert_uniform(p[:, Param.SATURATION], 0, 2)
    assert_uniform(p[:, Param.CONTRAST], 0.5, 1.5)
    assert p[:, Param.BRIGHTNESS : Param.TOP].T.corrcoef().triu(1).abs().max() < 0.03


@pytest.mark.parametrize(("size", "shifts"), [((32, 32), (4, 4)), ((28, 28), (4, 4)), ((64, 20), (8, 3))])
def test_crop_shifts_by_up_to_an_eighth(size, shifts):
    p = draw("crop", size)
    assert_equally_likely(p[:, Param.F], list(range(-shifts[0], shifts[0] + 1)))
    assert_equally_likely(p[:, Param.C], list(range(-shifts[1], shifts[1] + 1)))


def published_cutout(offset, side):
    """Rows that become zero: indices clamped one by one, as published."""
    k = int(side * 0.5 + 0.5)
    return sorted({min(max(i + offset - k // 2, 0), side - 1) for i in range(k)})


@pytest.mark.parametrize("side", [1, 2, 5, 7, 28, 32])
def test_cutout_is_the_published_square(side):
    p = draw("cutout", (side, side), 3000)
    k = int(side * 0.5 + 0.5)
    expected = {tuple(published_cutout(offset, side)) for offset in range(side + (1 - k % 2))}
    for first, last in ((Param.TOP, Param.BOTTOM), (Param.LEFT, Param.RIGHT)):
        got = {tuple(range(int(a), int(b))) for a, b in zip(p[:, first], p[:, last], strict=True)}
        assert got == expected


def test_flip_is_even():
    p = draw("flip")
    flipped = p[:, Param.A] == -1
    assert abs(flipped.double().mean() - 0.5) < 5 * 0.5 / math.sqrt(N)
    assert torch.equal(p[~flipped], identity_params(int((~flipped).sum()), dtype=torch.float64))
    assert (p[flipped, Param.C] == 31).all()


def test_scale_is_linear_and_independent():
    p = draw("scale")
    for column in (Param.A, Param.E):
        assert_uniform(p[:, column], 1 / 1.2, 1.2)
    assert p[:, [Param.A, Param.E]].T.corrcoef()[0, 1].abs() < 0.03
    # About the centre: (W - 1) / 2 stays where it is.
    torch.testing.assert_close(p[:, Param.A] * 15.5 + p[:, Param.C], torch.full((N,), 15.5, dtype=torch.float64))


def test_rotation_is_up_to_15_degrees():
    p = draw("rotate")
    assert_uniform(torch.atan2(p[:, Param.D], p[:, Param.A]) * 180 / math.pi, -15, 15)
    torch.testing.assert_close(p[:, Param.A] ** 2 + p[:, Param.B] ** 2, torch.ones(N, dtype=torch.float64))


def test_operations_are_equally_likely_and_one_at_a_time():
    p = draw(DSA_STRATEGY)
    same = identity_params(1, dtype=torch.float64)
    color = (p[:, 6:9] != same[:, 6:9]).any(1)
    cutout = (p[:, 9:] != same[:, 9:]).any(1)
    turned = p[:, Param.B] != 0
    scaled = ~turned & ((p[:, Param.A] != 1) | (p[:, Param.E] != 1)) & (p[:, Param.A] != -1)
    for chosen in (color, cutout, turned, scaled):
        assert abs(chosen.double().mean() - 1 / 6) < 5 * math.sqrt(5 / 36 / N)
    warped = (p[:, :6] != same[:, :6]).any(1)
    assert not (color & cutout).any()
    assert not (warped & (color | cutout)).any()


def test_shared_operation_has_parameters_of_its_own_for_every_key():
    keys = rng.lanes(rng.key(3, "test"), 50)
    kinds = set()
    for i in range(30):
        p = dsa_params("color_crop", keys + i, (32, 32), shared_op=True)
        color = p[:, Param.CONTRAST] != 1
        assert color.all() or not color.any()
        kinds.add(bool(color.all()))
        assert len(p.unique(dim=0)) > 20
    assert kinds == {True, False}


def test_a_row_depends_on_its_key_only():
    keys = rng.lanes(rng.key(4, "test"), 9)
    p = dsa_params(DSA_STRATEGY, keys, (32, 32))
    order = torch.tensor([4, 0, 8])
    assert torch.equal(dsa_params(DSA_STRATEGY, keys[order], (32, 32)), p[order])
    assert dsa_params(DSA_STRATEGY, keys[:0], (32, 32), shared_op=True).shape == (0, 13)


@settings(deadline=None, max_examples=50)
@given(
    theta=st.lists(st.floats(-1.3, 1.3), min_size=6, max_size=6),
    height=st.integers(1, 12),
    width=st.integers(1, 12),
)
def test_pixel_matrix_is_affine_grids(theta, height, width):
    theta = torch.tensor(theta, dtype=torch.float64).view(2, 3)
    grid = F.affine_grid(theta[None], [1, 1, height, width], align_corners=False)[0]
    a, b, c, d, e, f = pixel_matrix(theta, (height, width))
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    # grid_sample reads pixel ((g + 1) W - 1) / 2 for the normalised coordinate g.
    torch.testing.assert_close(a * x + b * y + c, ((grid[..., 0] + 1) * width - 1) / 2, rtol=0, atol=1e-12)
    torch.testing.assert_close(d * x + e * y + f, ((grid[..., 1] + 1) * height - 1) / 2, rtol=0, atol=1e-12)


@pytest.mark.parametrize("op", DSA_OPS)
def test_augment_does_what_was_published(op):
    """Each operation as its source has it, image by image, from the same numbers."""
    height, width = 11, 14
    x = torch.randn(8, 3, height, width, dtype=torch.float64)
    p = draw(op, (height, width), 8)
    expected = []
    for image, row in zip(x, p, strict=True):
        y = image.clone()
        if op == "color":
            y = y + row[Param.BRIGHTNESS]
            y = (y - y.mean(0)) * row[Param.SATURATION] + y.mean(0)
            y = (y - y.mean()) * row[Param.CONTRAST] + y.mean()
        elif op == "crop":
            down, right = int(row[Param.F]), int(row[Param.C])
            y = torch.zeros_like(image)
            for i in range(height):
                for j in range(width):
                    if 0 <= i + down < height and 0 <= j + right < width:
                        y[:, i, j] = image[:, i + down, j + right]
        elif op == "cutout":
            top, left, bottom, right = row[Param.TOP :].int().tolist()
            y[:, top:bottom, left:right] = 0
        elif op == "flip":
            y = y.flip(2) if row[Param.A] == -1 else y
        else:
            if op == "scale":
                theta = [[row[Param.A], 0, 0], [0, row[Param.E], 0]]
            else:
                angle = torch.asin(row[Param.D] * width / height)
                theta = [[angle.cos(), -angle.sin(), 0], [angle.sin(), angle.cos(), 0]]
            grid = F.affine_grid(torch.tensor([theta], dtype=torch.float64), [1, 3, height, width], align_corners=False)
            y = F.grid_sample(image[None], grid, align_corners=False)[0]
        expected.append(y)
    torch.testing.assert_close(augment(x, p), torch.stack(expected), rtol=0, atol=1e-12)


def test_strategies_are_checked():
    assert parse_strategy(DSA_STRATEGY) == DSA_OPS
    assert parse_strategy("") == parse_strategy("none") == parse_strategy("None") == ()
    with pytest.raises(ValueError, match="'colour' is not one of color, crop"):
        parse_strategy("colour_crop")
    with pytest.raises(ValueError, match="'crop' is named twice"):
        parse_strategy("crop_flip_crop")


def test_siamese_batches_share_one_transform():
    real = torch.randn(6, 3, 16, 16)
    seen = set()
    for seed in range(40):
        y = diff_augment(real, seed=seed, siamese=True)
        assert torch.equal(diff_augment(real[4:], seed=seed, siamese=True), y[4:])
        assert torch.equal(diff_augment(real, seed=seed, siamese=True), y)
        seen.add(round(y.sum().item(), 3))
    assert len(seen) > 25


def test_other_batches_share_the_operation_only():
    x = torch.randn(1, 3, 16, 16).repeat(8, 1, 1, 1)
    y = diff_augment(x, "color", seed=1)
    assert len({round(image.sum().item(), 4) for image in y}) == 8


def test_no_strategy_is_the_identity():
    x = torch.randn(2, 3, 4, 4)
    assert diff_augment(x, "none", seed=0) is x
    assert torch.equal(dsa_params("none", rng.lanes(0, 2), (4, 4)), identity_params(2))


def test_global_random_state_is_left_alone():
    state = torch.get_rng_state()
    diff_augment(torch.zeros(2, 3, 8, 8), seed=0)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.gpu
def test_gpu_draws_the_same_rows():
    keys = rng.lanes(rng.key(9, "test"), 1000)
    here = dsa_params(DSA_STRATEGY, keys, (32, 32), dtype=torch.float64)
    there = dsa_params(DSA_STRATEGY, keys.cuda(), (32, 32), dtype=torch.float64)
    torch.testing.assert_close(there.cpu(), here, rtol=1e-14, atol=1e-14)
