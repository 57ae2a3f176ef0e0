import math

import numpy as np
import pytest
import scipy.ndimage
import scipy.stats
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from fastdd.compat import dc as ours
from fastdd.compat import mtt, use_rng
from fastdd.compat import seed as seed_fast
from fastdd.compat.shared.passes import KeyedDraws

OPS = ("color", "crop", "cutout", "flip", "scale", "rotate")
ALL = "_".join(OPS)
DC_AUG = {"crop": 4, "scale": 0.2, "rotate": 45, "noise": 0.001}


def images(shape, dtype=torch.float32, seed=0):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def changed(**settings):
    param = ours.ParamDiffAug()
    for name, value in settings.items():
        setattr(param, name, value)
    return param


def diff_augment(align_corners):
    return mtt.DiffAugment if align_corners else ours.DiffAugment


class Literal:
    """The publications' description, image by image: every draw with the next seed, all images with the first's numbers
    if there is a seed."""

    def __init__(self, param, seed, align_corners=False):
        self.param, self.seed, self.align_corners = param, seed, align_corners

    def drawn(self, draw, n):
        if self.seed != -1:
            torch.manual_seed(self.seed + self.count)
            self.count += 1
        numbers = draw(n)
        return numbers if self.seed == -1 else numbers[:1].expand(n)

    def __call__(self, x, strategy):
        self.count = 0
        names = strategy.split("_")
        if self.param.aug_mode == "S":
            names = [names[self.drawn(lambda n: torch.randint(0, len(names), (n,)), 1).item()]]
        for name in names:
            x = getattr(self, name)(x)
        return x

    def uniform(self, n, dtype=torch.float32):
        return self.drawn(lambda n: torch.rand(n, dtype=dtype), n)

    def integer(self, n, low, high):
        return self.drawn(lambda n: torch.randint(low, high, (n,)), n).tolist()

    def color(self, x):
        b = self.uniform(len(x), x.dtype).view(-1, 1, 1, 1)
        x = x + (b - 0.5) * self.param.brightness
        grey, s = x.mean(1, keepdim=True), self.uniform(len(x), x.dtype).view(-1, 1, 1, 1)
        x = (x - grey) * (s * self.param.saturation) + grey
        mean, c = x.mean((1, 2, 3), keepdim=True), self.uniform(len(x), x.dtype).view(-1, 1, 1, 1)
        return (x - mean) * (c + self.param.contrast) + mean

    def crop(self, x):
        n, _, height, width = x.shape
        most = [int(side * self.param.ratio_crop_pad + 0.5) for side in (height, width)]
        down, right = (self.integer(n, -m, m + 1) for m in most)
        padded = F.pad(x, (most[1], most[1], most[0], most[0]))
        cut = [
            p[:, most[0] + d : most[0] + d + height, most[1] + r : most[1] + r + width]
            for p, d, r in zip(padded, down, right, strict=True)
        ]
        return torch.stack(cut)

    def cutout(self, x):
        mask = torch.ones_like(x)
        sides = []
        for side in x.shape[2:]:
            k = int(side * self.param.ratio_cutout + 0.5)
            centres = self.integer(len(x), 0, side + (1 - k % 2))
            sides.append([[min(max(c - k // 2 + i, 0), side - 1) for i in range(k)] for c in centres])
        for i, (rows, columns) in enumerate(zip(*sides, strict=True)):
            for row in rows:
                mask[i, :, row, columns] = 0
        return x * mask

    def flip(self, x):
        return torch.where((self.uniform(len(x)) < self.param.prob_flip).view(-1, 1, 1, 1), x.flip(3), x)

    def sampled(self, x, theta):
        grid = F.affine_grid(theta.to(x.dtype), list(x.shape), align_corners=self.align_corners)
        return F.grid_sample(x, grid, align_corners=self.align_corners)

    def scale(self, x):
        ratio, theta = self.param.ratio_scale, torch.zeros(len(x), 2, 3)
        for i in range(2):
            theta[:, i, i] = self.uniform(len(x)) * (ratio - 1 / ratio) + 1 / ratio
        return self.sampled(x, theta)

    def rotate(self, x):
        angle = (self.uniform(len(x)) - 0.5) * 2 * self.param.ratio_rotate / 180 * math.pi
        zero = torch.zeros(len(x))
        theta = torch.stack([angle.cos(), -angle.sin(), zero, angle.sin(), angle.cos(), zero], 1)
        return self.sampled(x, theta.view(-1, 2, 3))


def run_seeded(function):
    """What ``function`` gives with the global generators in a known state, and the state that it leaves."""
    torch.manual_seed(77)
    np.random.seed(78)
    result = function()
    state = np.random.get_state()
    return result, (torch.get_rng_state().tolist(), torch.initial_seed(), state[1].tolist(), state[2])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("mode", ["S", "M"])
@pytest.mark.parametrize("strategy", [*OPS, ALL])
def test_legacy_is_the_published_description_and_leaves_its_generator_state(strategy, mode, align_corners, dtype):
    x, g = images((5, 3, 12, 19), dtype), images((5, 3, 12, 19), dtype, seed=1)
    for seed in (-1, 0, 3, 12345):
        param = changed(aug_mode=mode)
        leaf = x.clone().requires_grad_()

        def published(leaf=leaf, seed=seed):
            return Literal(changed(aug_mode=mode), seed, align_corners)(leaf, strategy)

        def legacy(leaf=leaf, seed=seed, param=param):
            return diff_augment(align_corners)(leaf, strategy, seed=seed, param=param, rng="legacy")

        (expected, expected_state), (got, state) = run_seeded(published), run_seeded(legacy)
        # Sine and cosine are of float32 angles, as published, so float64 images differ by their rounding too.
        torch.testing.assert_close(got, expected, rtol=0, atol=1e-5)
        gradients = [torch.autograd.grad(y, leaf, g)[0] for y in (got, expected)]
        torch.testing.assert_close(*gradients, rtol=0, atol=1e-5)
        assert state == expected_state
        assert param.Siamese == param.batchmode == (seed != -1)
        assert got.is_contiguous()


@pytest.mark.parametrize("strategy", ["color", "crop", "cutout", "flip", "color_crop_cutout_flip"])
def test_gradients_in_float64(strategy):
    x, g = images((4, 3, 9, 10), torch.float64).requires_grad_(), images((4, 3, 9, 10), torch.float64, seed=1)
    for seed in (-1, 5):
        param = changed(aug_mode="M")
        expected, _ = run_seeded(lambda seed=seed, param=param: Literal(param, seed)(x, strategy))
        got, _ = run_seeded(lambda seed=seed, param=param: ours.DiffAugment(x, strategy, seed, param, rng="legacy"))
        torch.testing.assert_close(got, expected, rtol=0, atol=1e-13)
        gradients = [torch.autograd.grad(y, x, g)[0] for y in (got, expected)]
        torch.testing.assert_close(*gradients, rtol=0, atol=1e-13)


def test_second_derivatives_in_float64():
    x = images((2, 2, 5, 6), torch.float64).requires_grad_()
    param = changed(aug_mode="M")
    assert torch.autograd.gradgradcheck(
        lambda x: ours.DiffAugment(x, ALL, seed=3, param=param, rng="fast").square(), (x,), atol=1e-6
    )


@pytest.fixture
def chosen(monkeypatch):
    """``chosen(seeds, rng)``: the numbers of the operations that DiffAugment takes, of six."""

    def run(seeds, rng):
        numbers = []
        for i in range(6):
            monkeypatch.setitem(ours.AUGMENT_FNS, str(i), [lambda x, param, i=i: numbers.append(i) or x])
        for seed in seeds:
            ours.DiffAugment(torch.zeros(1, 1, 1, 1), "0_1_2_3_4_5", seed, rng=rng)
        return numbers

    return run


# Of an image 0..15 of 4 x 4 pixels, with seed 7.
PINNED = {
    "color": [
        [0.41229, 1.37038, 2.32846, 3.28655],
        [4.24463, 5.20272, 6.1608, 7.11888],
        [8.07697, 9.03505, 9.99314, 10.95122],
        [11.90931, 12.86739, 13.82548, 14.78356],
    ],
    "crop": [[0, 0, 0, 0], [0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]],
    "cutout": [[0, 1, 2, 3], [4, 5, 6, 7], [0, 9, 10, 11], [0, 13, 14, 15]],
    "flip": [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11], [12, 13, 14, 15]],
    "scale": [
        [0.0, 0.86594, 1.80201, 2.45756],
        [3.54862, 4.82614, 5.87871, 6.31204],
        [7.50506, 9.12129, 10.17386, 10.26848],
        [9.83024, 11.53776, 12.47384, 12.2878],
    ],
    "rotate": [
        [0.07294, 1.05205, 2.18661, 3.06705],
        [3.72271, 4.92641, 6.1301, 7.13722],
        [7.50796, 8.8699, 10.07359, 11.27729],
        [10.80935, 12.81339, 13.59314, 13.80345],
    ],
}
# The seed that is left behind: one for the operation, one for every number.
PINNED_SEEDS = {"color": 10, "crop": 9, "cutout": 9, "flip": 8, "scale": 9, "rotate": 8}


def test_pinned_draws_of_seeds(chosen):
    assert chosen(range(12), "legacy") == [2, 1, 0, 4, 4, 5, 2, 3, 3, 4, 5, 3]
    x = torch.arange(16.0).view(1, 1, 4, 4)
    for op, expected in PINNED.items():
        got = ours.DiffAugment(x, op, seed=7, rng="legacy")[0, 0]
        torch.testing.assert_close(got, torch.tensor(expected, dtype=torch.float32), rtol=0, atol=2e-5)
        assert torch.initial_seed() == PINNED_SEEDS[op]


def test_legacy_draws_are_of_the_default_dtype_as_published():
    x = images((16, 1, 4, 4), torch.float64)
    torch.set_default_dtype(torch.float64)
    try:
        torch.manual_seed(5)
        flipped = ours.rand_flip(x, changed(latestseed=-1), rng="legacy")
        after = torch.get_rng_state()
        torch.manual_seed(5)
        assert torch.equal(flipped, torch.where(torch.rand(16, 1, 1, 1) < 0.5, x.flip(3), x))
        assert torch.equal(after, torch.get_rng_state())
    finally:
        torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("rng", ["legacy", "fast"])
def test_a_seed_gives_batches_of_any_size_one_transform(rng):
    x = images((9, 3, 8, 8))
    for op in OPS:
        for seed in range(5):
            large = ours.DiffAugment(x, op, seed=seed, param=ours.ParamDiffAug(), rng=rng)
            small = ours.DiffAugment(x[:2], op, seed=seed, param=ours.ParamDiffAug(), rng=rng)
            assert torch.equal(large[:2], small)
            same = ours.DiffAugment(x[:1].expand(3, -1, -1, -1), op, seed=seed, param=ours.ParamDiffAug(), rng=rng)
            assert torch.equal(same[0], same[2])


@pytest.mark.parametrize("op", OPS)
def test_without_a_seed_images_have_their_own_transforms(op):
    x = images((1, 3, 8, 8)).expand(40, -1, -1, -1)
    for rng in ("legacy", "fast"):
        got = ours.DiffAugment(x, op, rng=rng)
        assert len(got.flatten(1).unique(dim=0)) > (1 if op == "flip" else 5)


def test_fast_leaves_the_global_generators_alone_and_starts_again_with_its_seed():
    x = images((6, 3, 8, 8))

    def calls():
        seed_fast(4)
        return [ours.DiffAugment(x, ALL, seed, ours.ParamDiffAug(), rng="fast") for seed in (-1, -1, -1, 3, -1)]

    (first, state), (again, _) = run_seeded(calls), run_seeded(calls)
    assert state == run_seeded(lambda: None)[1]
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first[0], first[1])
    seed_fast(5)
    assert not torch.equal(ours.DiffAugment(x, ALL, -1, ours.ParamDiffAug(), rng="fast"), first[0])
    # A given seed's transform is that of the seed, whatever was drawn before.
    assert torch.equal(ours.DiffAugment(x, ALL, 3, rng="fast"), first[3])
    seed_fast(0)


def test_fast_operations_by_themselves_take_one_seed_after_another():
    x = torch.zeros(3, 1, 2, 2)
    param = changed(latestseed=5, Siamese=True)
    first, second = (ours.rand_brightness(x, param, rng="fast") for _ in range(2))
    assert param.latestseed == 7
    assert not torch.equal(first, second)
    assert torch.equal(ours.rand_brightness(x[:1], changed(latestseed=6, batchmode=True), rng="fast"), second[:1])
    # Without any of the attributes that DiffAugment sets, images have their own.
    assert len(ours.rand_brightness(x, ours.ParamDiffAug(), rng="fast").unique()) == 3


def test_keyed_draws_do_not_repeat_and_do_not_depend_on_the_other_rows():
    few, many = KeyedDraws(5, 3), KeyedDraws(5, 7)
    drawn = np.array([few.uniform() for _ in range(40)])
    assert len(np.unique(drawn)) == 120
    assert np.array_equal(drawn, np.array([many.uniform() for _ in range(40)])[:, :3])


def test_the_mode_that_is_set_is_used():
    x = images((6, 3, 8, 8))
    with use_rng("legacy"):
        a, state = run_seeded(lambda: ours.DiffAugment(x, "crop", 9))
    assert state[1] == 11
    b, _ = run_seeded(lambda: ours.DiffAugment(x, "crop", 9, rng="legacy"))
    assert torch.equal(a, b)


def uniform_p(values, low, high):
    assert values.min() >= low
    assert values.max() < high
    return scipy.stats.kstest(values, scipy.stats.uniform(low, high - low).cdf).pvalue


def counted_p(values, low, high):
    """Of all whole numbers low..high being as likely."""
    counts = np.bincount((values - low).astype(int), minlength=high - low + 1)
    assert len(counts) == high - low + 1
    return scipy.stats.chisquare(counts).pvalue


def test_fast_has_the_published_distributions(chosen):
    seed_fast(11)
    n, least = 4000, 1e-3
    zeros = torch.zeros(n, 1, 1, 1)
    assert (
        uniform_p(ours.rand_brightness(zeros, changed(brightness=3.0), rng="fast").flatten().numpy(), -1.5, 1.5) > least
    )
    unlike = torch.tensor([1.0, -1.0]).view(1, 2, 1, 1).expand(n, 2, 1, 1)
    saturated = ours.rand_saturation(unlike, ours.ParamDiffAug(), rng="fast")
    assert uniform_p(saturated[:, 0].flatten().numpy(), 0, 2) > least
    contrasted = ours.rand_contrast(unlike.reshape(n, 1, 1, 2), ours.ParamDiffAug(), rng="fast")
    assert uniform_p(contrasted[..., 0].flatten().numpy(), 0.5, 1.5) > least
    flipped = ours.rand_flip(contrasted.new_tensor([0.0, 1]).expand(n, 1, 1, 2), changed(prob_flip=0.3), rng="fast")
    assert scipy.stats.binomtest(int(flipped[..., 0].sum()), n, 0.3).pvalue > least
    # A ramp shows where the second pixel of a pair samples: the centre is at 0, so 4.5 becomes 4.5 times the factor.
    ramp = (torch.arange(64.0) - 31.5).view(1, 1, 1, -1)
    for x, at in ((ramp.expand(n, 1, 64, 64), (32, 36)), (ramp.mT.expand(n, 1, 64, 64), (36, 32))):
        scaled = ours.rand_scale(x[:, :, :, :], ours.ParamDiffAug(), rng="fast")[:, 0, at[0], at[1]].numpy()
        assert uniform_p(scaled / 4.5, 1 / 1.2 - 1e-6, 1.2 + 1e-6) > least
    turned = ours.rand_rotate(ramp.expand(n, 1, 64, 64), ours.ParamDiffAug(), rng="fast")
    step = (turned[:, 0, 36, 36] - turned[:, 0, 27, 36]).numpy() / 9
    assert uniform_p(np.degrees(-np.arcsin(step)), -15.0 - 1e-3, 15.0 + 1e-3) > least
    spot = F.one_hot(torch.tensor(12 * 24 + 12), 24 * 24).view(1, 1, 24, 24).float().expand(n, 1, 24, 24)
    cropped = ours.rand_crop(spot, ours.ParamDiffAug(), rng="fast").flatten(1).argmax(1).numpy()
    assert counted_p(12 - cropped // 24, -3, 3) > least
    assert counted_p(12 - cropped % 24, -3, 3) > least
    kept = ours.rand_cutout(torch.ones(n, 1, 10, 7), ours.ParamDiffAug(), rng="fast")[:, 0]
    # Half of 10 is odd: the centre is on 0..9; half of 7 rounds up to 4, which is even: on 0..7.
    for axis, side, k in ((1, 10, 5), (2, 7, 4)):
        cut = (kept == 0).any(axis=3 - axis)
        first, last = cut.int().argmax(1), side - 1 - cut.flip(1).int().argmax(1)
        centre = torch.where(first > 0, first + k // 2, last - (k - 1 - k // 2))
        assert counted_p(centre.numpy(), 0, side - 1 + (1 - k % 2)) > least
    assert counted_p(np.array(chosen(range(3000), "fast")), 0, 5) > least
    assert counted_p(np.array(chosen([-1] * 3000, "fast")), 0, 5) > least


@settings(deadline=None, max_examples=40)
@given(
    ops=st.lists(st.sampled_from(OPS), min_size=1, max_size=7),
    seed=st.one_of(st.just(-1), st.integers(0, 1000)),
    size=st.tuples(st.integers(1, 13), st.integers(1, 13)),
    align_corners=st.booleans(),
)
def test_operations_that_share_a_pass_are_those_one_by_one(ops, seed, size, align_corners):
    x = images((3, 3, *size), torch.float64)
    fns = mtt.AUGMENT_FNS if align_corners else ours.AUGMENT_FNS

    def one_by_one():
        param = changed(latestseed=seed, Siamese=seed != -1)
        y = x
        for op in ops:
            for function in fns[op]:
                y = function(y, param, rng="legacy")
        return y

    def together():
        return diff_augment(align_corners)(x, "_".join(ops), seed, changed(aug_mode="M"), rng="legacy")

    (expected, before), (got, after) = run_seeded(one_by_one), run_seeded(together)
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-11)
    assert before == after


def test_changed_ranges_are_honoured_in_both_modes():
    x = images((4, 3, 16, 16))
    for rng in ("legacy", "fast"):
        assert torch.equal(ours.DiffAugment(x, "flip", param=changed(prob_flip=1.0), rng=rng), x.flip(3))
        assert torch.equal(ours.DiffAugment(x, "flip", param=changed(prob_flip=0.0), rng=rng), x)
        assert torch.equal(ours.DiffAugment(x, "crop", param=changed(ratio_crop_pad=0.0), rng=rng), x)
        assert torch.equal(ours.DiffAugment(x, "cutout", param=changed(ratio_cutout=0.0), rng=rng), x)
        assert not ours.DiffAugment(x, "cutout", param=changed(ratio_cutout=2.0), rng=rng).any()
        assert torch.equal(ours.DiffAugment(x, "rotate", param=changed(ratio_rotate=0.0), rng=rng), x)
        assert torch.equal(ours.DiffAugment(x, "scale", param=changed(ratio_scale=1.0), rng=rng), x)
        still = changed(brightness=0.0, saturation=0.0, contrast=0.0)
        grey = ours.DiffAugment(x, "color", param=still, rng=rng)
        torch.testing.assert_close(grey, grey.mean(1, keepdim=True).expand_as(grey), rtol=0, atol=1e-6)


@pytest.mark.parametrize("param", [{"ratio_scale": 9.0}, {"ratio_scale": 0.1}, {"ratio_rotate": 180.0}])
@pytest.mark.parametrize("size", [(16, 16), (3, 17)])
def test_ranges_beyond_the_operations_matrices(param, size):
    x, op = images((6, 3, *size)).requires_grad_(), "scale" if "ratio_scale" in param else "rotate"
    expected, _ = run_seeded(lambda: Literal(changed(**param), -1)(x, op))
    got, _ = run_seeded(lambda: ours.DiffAugment(x, op, param=changed(**param), rng="legacy"))
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-4)
    torch.testing.assert_close(
        *(torch.autograd.grad(y.square().sum(), x)[0] for y in (got, expected)), rtol=0, atol=1e-3
    )


def test_square_images_are_the_same_whatever_align_corners():
    x = images((4, 3, 16, 16))
    for op in ("scale", "rotate"):
        a, b = (f(x, op, seed=3, rng="fast") for f in (ours.DiffAugment, mtt.DiffAugment))
        torch.testing.assert_close(a, b, rtol=0, atol=1e-6)


def test_functions_that_a_script_adds_are_called(monkeypatch):
    def rand_negative(x, given):
        assert given is param
        return -x

    monkeypatch.setitem(ours.AUGMENT_FNS, "negative", [rand_negative])
    x, param = images((2, 3, 4, 4)), changed(aug_mode="M", prob_flip=1.0, ratio_crop_pad=0.0)
    got = ours.DiffAugment(x, "flip_negative_crop", param=param, rng="fast")
    assert torch.equal(got, -x.flip(3))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("op", OPS)
def test_dtypes(op, dtype):
    x = images((4, 3, 8, 8), dtype)
    for rng in ("legacy", "fast"):
        y = ours.DiffAugment(x, op, seed=3, rng=rng)
        assert y.dtype == dtype
        if rng == "fast" or op not in ("color",):
            expected = ours.DiffAugment(x.float(), op, seed=3, rng=rng)
            tolerance = {torch.bfloat16: 2**-8, torch.float16: 2**-10, torch.float64: 1e-6}[dtype]
            torch.testing.assert_close(y.float(), expected, rtol=tolerance, atol=tolerance)


def test_images_may_lie_in_memory_as_they_like():
    x = images((4, 3, 8, 10))
    for op in OPS:
        expected = ours.DiffAugment(x, op, seed=3, rng="fast")
        for y in (
            x.contiguous(memory_format=torch.channels_last),
            x.mT.contiguous().mT,
            x.repeat(1, 1, 1, 2)[..., ::1],
        ):
            got = ours.DiffAugment(y[..., :10], op, seed=3, rng="fast")
            assert torch.equal(got, expected)
            assert got.is_contiguous()


def test_no_strategy_returns_the_batch_itself():
    x = images((2, 3, 4, 4))
    for strategy in ("", "none", "None"):
        assert ours.DiffAugment(x, strategy, param=None) is x
    assert ours.DiffAugment(x) is x


def test_errors():
    x = images((2, 3, 4, 4))
    with pytest.raises(ValueError, match="'blur' is not one of color, crop"):
        ours.DiffAugment(x, "color_blur")
    with pytest.raises(ValueError, match=r"aug_mode must be 'S'.*not 'T'"):
        ours.DiffAugment(x, "color", param=changed(aug_mode="T"))
    with pytest.raises(ValueError, match=r"floating point.*torch\.uint8"):
        ours.DiffAugment(x.byte(), "color")
    with pytest.raises(ValueError, match="rng must be one of fast, legacy, not 'old'"):
        ours.DiffAugment(x, "color", rng="old")


def test_set_seed_counts_up():
    param = changed(latestseed=-1)
    state = torch.get_rng_state()
    ours.set_seed_DiffAug(param)
    assert param.latestseed == -1
    assert torch.equal(torch.get_rng_state(), state)
    param.latestseed = 40
    ours.set_seed_DiffAug(param)
    assert (param.latestseed, torch.initial_seed()) == (41, 40)


@pytest.mark.gpu
def test_gpu_images_have_the_transforms_of_the_cpu():
    x = images((4, 3, 16, 16))
    for op in OPS:
        for rng in ("legacy", "fast"):
            a, b = (ours.DiffAugment(y, op, seed=5, rng=rng) for y in (x, x.cuda()))
            torch.testing.assert_close(b.cpu(), a, rtol=0, atol=1e-5)


@pytest.mark.parametrize("family", ["dc", "fairdd", "mtt"])
def test_upstream(upstream, family):
    utils = upstream(family)[1]["utils"]
    align_corners = family == "mtt"
    x, g = images((7, 3, 20, 32)), images((7, 3, 20, 32), seed=1)
    for strategy in (*OPS, ALL):
        for mode in "SM":
            for seed in (-1, 0, 5, 99):
                results = []
                for function, settings_of, keywords in (
                    (utils.DiffAugment, utils.ParamDiffAug, {}),
                    (diff_augment(align_corners), ours.ParamDiffAug, {"rng": "legacy"}),
                ):
                    param, leaf = settings_of(), x.clone().requires_grad_()
                    param.aug_mode = mode
                    y, state = run_seeded(lambda: function(leaf, strategy, seed=seed, param=param, **keywords))  # noqa: B023
                    results.append((y, torch.autograd.grad(y, leaf, g)[0], state, param.latestseed))
                (y, grad, *rest), (expected, expected_grad, *expected_rest) = results
                torch.testing.assert_close(y, expected, rtol=0, atol=1e-5)
                torch.testing.assert_close(grad, expected_grad, rtol=0, atol=1e-5)
                assert rest == expected_rest
    published, mine = vars(utils.ParamDiffAug()), vars(ours.ParamDiffAug())
    assert {name: mine[name] for name in published} == published


# The older augmentation, of evaluation.


def literal_augment(images, settings):
    """As published, image by image."""
    images = images.clone()
    n, channels, height, width = images.shape
    means = [float(images[:, c].mean()) for c in range(channels)]
    names = settings["strategy"].split("_")
    for i in range(n):
        name = np.random.permutation(names)[0]
        if name == "crop":
            crop = settings["crop"]
            padded = torch.tensor(means).view(-1, 1, 1).repeat(1, height + 2 * crop, width + 2 * crop)
            padded[:, crop : crop + height, crop : crop + width] = images[i]
            top, left = np.random.permutation(crop * 2)[0], np.random.permutation(crop * 2)[0]
            images[i] = padded[:, top : top + height, left : left + width]
        elif name == "scale":
            h, w = (int(np.random.uniform(1 - settings["scale"], 1 + settings["scale"]) * height) for _ in range(2))
            small, side = F.interpolate(images[i : i + 1], [h, w])[0], max(h, w, height, width)
            canvas = torch.zeros(channels, side, side)
            top, left = (side - h) // 2, (side - w) // 2
            canvas[:, top : top + h, left : left + w] = small
            top, left = (side - height) // 2, (side - width) // 2
            images[i] = canvas[:, top : top + height, left : left + width]
        elif name == "rotate":
            angle = np.random.randint(-settings["rotate"], settings["rotate"])
            turned = scipy.ndimage.rotate(images[i].numpy(), angle, axes=(-2, -1), cval=np.mean(means))
            top, left = (turned.shape[1] - height) // 2, (turned.shape[2] - width) // 2
            images[i] = torch.tensor(turned[:, top : top + height, left : left + width])
        elif name == "noise":
            images[i] = images[i] + settings["noise"] * torch.randn(images.shape[1:])
    return images


@pytest.mark.parametrize(
    "strategy", ["crop", "scale", "rotate", "noise", "crop_scale_rotate", "crop_noise", "crop_other"]
)
@pytest.mark.parametrize("shape", [(40, 1, 28, 28), (30, 3, 17, 17), (30, 2, 20, 26)])
def test_legacy_augment_is_the_published_description(strategy, shape):
    if shape[2] != shape[3] and "rotate" in strategy:
        pytest.skip("the published crop of what was rotated wants squares")
    x, settings = images(shape), {**DC_AUG, "strategy": strategy}
    expected, before = run_seeded(lambda: literal_augment(x, settings))
    mine = x.clone()
    got, after = run_seeded(lambda: ours.augment(mine, settings, "cpu", rng="legacy"))
    assert got is mine
    assert before == after
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-6)


def test_fast_augment_has_the_published_distributions():
    seed_fast(2)
    n, least = 3000, 1e-3
    spot = F.one_hot(torch.tensor(10 * 20 + 10), 400).view(1, 1, 20, 20).float().repeat(n, 1, 1, 1)
    at = ours.augment(spot.clone(), {**DC_AUG, "strategy": "crop"}, "cpu", rng="fast").flatten(1).argmax(1).numpy()
    # The offset is one of 0..7, never 8; 4 is no shift.
    assert counted_p(14 - at // 20, 0, 7) > least
    assert counted_p(14 - at % 20, 0, 7) > least
    ones = ours.augment(torch.ones(n, 1, 50, 50), {**DC_AUG, "strategy": "scale"}, "cpu", rng="fast")
    for axis in (2, 3):
        # int of uniform [40, 60), cut off at 50.
        size = ones.amax(5 - axis).sum(-1).flatten().numpy().astype(int)
        counts = np.bincount(size, minlength=51)[40:]
        assert scipy.stats.chisquare(counts, n * np.array([1] * 10 + [10]) / 20).pvalue > least
    ramp = (torch.arange(41.0) - 20).view(1, 1, 1, -1).repeat(n, 1, 41, 1)
    turned = ours.augment(ramp, {**DC_AUG, "strategy": "rotate"}, "cpu", rng="fast")[:, 0]
    turned = turned.double().numpy()
    degrees = np.degrees(np.arctan2(turned[:, 16, 20] - turned[:, 24, 20], turned[:, 20, 24] - turned[:, 20, 16]))
    assert abs(degrees - degrees.round()).max() < 1e-3
    assert counted_p(degrees.round(), -45, 44) > least
    noisy = ours.augment(torch.zeros(n, 1, 4, 4), {**DC_AUG, "strategy": "noise"}, "cpu", rng="fast")
    assert scipy.stats.kstest(noisy.flatten().numpy() / 0.001, "norm").pvalue > least
    mixed = ours.augment(torch.zeros(n, 1, 4, 4), {**DC_AUG, "strategy": "noise_other"}, "cpu", rng="fast")
    assert scipy.stats.binomtest(int(mixed.flatten(1).any(1).sum()), n).pvalue > least


def test_fast_augment_leaves_the_global_generators_alone():
    settings = {**DC_AUG, "strategy": "crop_scale_rotate_noise"}

    def calls():
        seed_fast(6)
        return [ours.augment(images((20, 1, 12, 12)), settings, "cpu", rng="fast") for _ in range(2)]

    (first, state), (again, _) = run_seeded(calls), run_seeded(calls)
    assert state == run_seeded(lambda: None)[1]
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not torch.equal(*first)


def test_augment_without_settings_or_images():
    x = images((3, 1, 6, 6))
    for nothing in (None, {**DC_AUG, "strategy": "none"}):
        assert ours.augment(x, nothing, "cpu") is x
    assert torch.equal(x, images((3, 1, 6, 6)))
    none = x[:0]
    assert ours.augment(none, {**DC_AUG, "strategy": "rotate"}, "cpu") is none


@pytest.mark.gpu
def test_augment_on_a_gpu_is_that_of_the_cpu():
    settings = {**DC_AUG, "strategy": "crop_scale_rotate"}
    results = []
    for device in ("cpu", "cuda"):
        seed_fast(3)
        results.append(ours.augment(images((30, 3, 16, 16)).to(device), settings, device, rng="fast").cpu())
    torch.testing.assert_close(*results, rtol=0, atol=1e-6)


@pytest.mark.parametrize("family", ["dc", "fairdd", "mtt"])
def test_upstream_augment(upstream, family):
    utils = upstream(family)[1]["utils"]
    for strategy in ("crop", "scale", "rotate", "noise", "crop_scale_rotate", "crop_noise"):
        for shape in ((30, 1, 28, 28), (30, 3, 32, 32)):
            settings = {**DC_AUG, "strategy": strategy}
            expected, before = run_seeded(lambda s=settings, n=shape: utils.augment(images(n), s, "cpu"))
            got, after = run_seeded(lambda s=settings, n=shape: ours.augment(images(n), s, "cpu", rng="legacy"))
            assert before == after
            torch.testing.assert_close(got, expected, rtol=0, atol=1e-6)
