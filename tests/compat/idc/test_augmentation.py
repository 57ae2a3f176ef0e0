import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from fastdd.compat import seed as seed_fast
from fastdd.compat import use_rng
from fastdd.compat.idc import DiffAug, augmentation

OPS = ("color", "crop", "cutout", "flip", "scale", "rotate", "translate")
STRATEGIES = ("color_crop_cutout_flip_scale_rotate", "color_crop_cutout", "flip_color_cutout", "crop_translate", *OPS)


def images(shape, dtype=torch.float32, seed=0):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def run_seeded(function):
    """What ``function`` gives with the global generators in a known state, and the state that it leaves."""
    torch.manual_seed(77)
    np.random.seed(78)
    result = function()
    state = np.random.get_state()
    return result, (torch.get_rng_state().tolist(), torch.initial_seed(), state[1].tolist(), state[2])


class Literal:
    """IDC's description, an operation at a time, image by image."""

    def __init__(self, strategy, batch, single=False, ratio_cutout=0.5):
        names = strategy.split("_")
        self.always = () if single else tuple(name for name in ("flip", "color", "cutout") if name in names)
        self.others = [name for name in names if name not in self.always]
        self.batch, self.ratio_cutout = batch, ratio_cutout

    def __call__(self, x, single_aug=True, seed=-1):
        self.seed, self.n = seed, len(x)
        for name in ("flip", "color"):
            if name in self.always:
                x = getattr(self, name)(x)
        if self.others:
            for name in [self.others[np.random.randint(len(self.others))]] if single_aug else self.others:
                x = getattr(self, name)(x)
        return self.cutout(x) if "cutout" in self.always else x

    def reseed(self):
        if self.seed > 0:
            np.random.seed(self.seed)
            torch.manual_seed(self.seed)

    def uniform(self, dtype):
        """One number an image, from torch; or one for all, from numpy."""
        drawn = (
            torch.full((self.n,), np.random.uniform(), dtype=dtype) if self.batch else torch.rand(self.n, dtype=dtype)
        )
        return drawn.view(-1, 1, 1, 1)

    def uniform_by_numpy(self):
        return [np.random.uniform()] * self.n if self.batch else np.random.uniform(size=self.n)

    def integers(self, low, high):
        if self.batch:
            return [np.random.randint(low, high)] * self.n
        return torch.randint(low, high, (self.n,)).tolist()

    def flip(self, x):
        self.reseed()
        return torch.where(self.uniform(torch.float32) < 0.5, x.flip(3), x)

    def color(self, x):
        self.reseed()
        x = x + (self.uniform(x.dtype) - 0.5)
        self.reseed()
        grey = x.mean(1, keepdim=True)
        x = (x - grey) * (self.uniform(x.dtype) * 2) + grey
        self.reseed()
        mean = x.mean((1, 2, 3), keepdim=True)
        return (x - mean) * (self.uniform(x.dtype) + 0.5) + mean

    def sampled(self, x, theta):
        theta = torch.tensor(theta, dtype=torch.float).to(x.dtype)
        return F.grid_sample(x, F.affine_grid(theta, list(x.shape), align_corners=False), align_corners=False)

    def scale(self, x):
        self.reseed()
        sx, sy = ([u * (1.2 - 1 / 1.2) + 1 / 1.2 for u in self.uniform_by_numpy()] for _ in range(2))
        return self.sampled(x, [[[a, 0, 0], [0, b, 0]] for a, b in zip(sx, sy, strict=True)])

    def rotate(self, x):
        self.reseed()
        angles = [(u - 0.5) * 2 * 15 / 180 * math.pi for u in self.uniform_by_numpy()]
        return self.sampled(x, [[[math.cos(a), -math.sin(a), 0], [math.sin(a), math.cos(a), 0]] for a in angles])

    def moved(self, x, down, right):
        padded, (height, width) = F.pad(x, (20, 20, 20, 20)), x.shape[2:]
        cut = [
            p[:, 20 + d : 20 + d + height, 20 + r : 20 + r + width] for p, d, r in zip(padded, down, right, strict=True)
        ]
        return torch.stack(cut)

    def crop(self, x):
        self.reseed()
        most = [int(side / 8 + 0.5) for side in x.shape[2:]]
        return self.moved(x, *[self.integers(-m, m + 1) for m in most])

    def translate(self, x):
        self.reseed()
        most = int(x.shape[3] / 8 + 0.5)
        return self.moved(x, [0] * self.n, self.integers(-most, most + 1))

    def cutout(self, x):
        self.reseed()
        sides = [int(side * self.ratio_cutout + 0.5) for side in x.shape[2:]]
        first = [
            [c - k // 2 for c in self.integers(0, side + (1 - k % 2))]
            for k, side in zip(sides, x.shape[2:], strict=True)
        ]
        mask = torch.ones_like(x)
        for i, (top, left) in enumerate(zip(*first, strict=True)):
            mask[i, :, max(top, 0) : top + sides[0], max(left, 0) : left + sides[1]] = 0
        return x * mask


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("single_aug", [True, False])
@pytest.mark.parametrize("batch", [True, False])
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_legacy_is_the_published_description_and_leaves_its_generator_state(strategy, batch, single_aug, dtype):
    x, g = images((5, 3, 12, 18), dtype).requires_grad_(), images((5, 3, 12, 18), dtype, seed=1)
    for seed in (-1, 0, 4, 99):
        for single in (False, True):
            literal = Literal(strategy, batch, single, ratio_cutout=0.4)
            aug = DiffAug(strategy, batch, 0.4, single, rng="legacy")
            expected, before = run_seeded(lambda literal=literal, seed=seed: literal(x, single_aug, seed))
            got, after = run_seeded(lambda aug=aug, seed=seed: aug(x, single_aug, seed))
            # Matrices are rounded to float32 by the published code, of either dtype.
            torch.testing.assert_close(got, expected, rtol=0, atol=1e-5)
            gradients = [torch.autograd.grad(y, x, g)[0] for y in (got, expected)]
            torch.testing.assert_close(*gradients, rtol=0, atol=2e-5)
            assert before == after
            assert got.is_contiguous()


@pytest.mark.parametrize("batch", [True, False])
def test_gradients_in_float64(batch):
    x, g = images((4, 3, 9, 10), torch.float64).requires_grad_(), images((4, 3, 9, 10), torch.float64, seed=1)
    strategy = "flip_color_crop_translate_cutout"
    expected, _ = run_seeded(lambda: Literal(strategy, batch)(x, single_aug=False))
    got, _ = run_seeded(lambda: DiffAug(strategy, batch, rng="legacy")(x, single_aug=False))
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-13)
    torch.testing.assert_close(*(torch.autograd.grad(y, x, g)[0] for y in (got, expected)), rtol=0, atol=1e-13)


# Of an image 0..15 of 4 x 4 pixels, with seed 3 and one transform for the batch.
PINNED = {
    "flip": [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11], [12, 13, 14, 15]],
    "color": [
        [-0.33019, 0.72061, 1.77141, 2.82221],
        [3.87301, 4.9238, 5.9746, 7.0254],
        [8.0762, 9.12699, 10.17779, 11.22859],
        [12.27939, 13.33019, 14.38098, 15.43178],
    ],
    "scale": [
        [0, 0.84533, 1.73622, 2.44489],
        [3.61212, 4.79638, 5.83167, 6.4533],
        [7.75262, 9.16833, 10.20362, 10.5938],
        [9.77957, 11.17156, 12.06245, 12.22446],
    ],
    "rotate": [
        [0.03883, 1.02679, 2.09503, 3.03724],
        [3.85497, 4.96099, 6.06702, 7.06886],
        [7.73964, 8.93298, 10.03901, 11.14503],
        [11.37234, 12.90497, 13.78171, 14.37075],
    ],
    "crop": [[0, 4, 5, 6], [0, 8, 9, 10], [0, 12, 13, 14], [0, 0, 0, 0]],
    "translate": [[1, 2, 3, 0], [5, 6, 7, 0], [9, 10, 11, 0], [13, 14, 15, 0]],
    "cutout": [[0, 1, 2, 3], [0, 5, 6, 7], [0, 9, 10, 11], [12, 13, 14, 15]],
}


@pytest.mark.parametrize("name", PINNED)
def test_pinned_draws_of_a_seed(name):
    got = DiffAug(name, batch=True, rng="legacy")(torch.arange(16.0).view(1, 1, 4, 4), seed=3)[0, 0]
    torch.testing.assert_close(got, torch.tensor(PINNED[name], dtype=torch.float32), rtol=0, atol=2e-5)


def test_fast_leaves_the_global_generators_alone_and_starts_again_with_its_seed():
    x, aug = images((6, 3, 8, 8)), DiffAug(rng="fast")

    def calls():
        seed_fast(4)
        return [aug(x, seed=seed) for seed in (-1, -1, 0, 3)]

    (first, state), (again, _) = run_seeded(calls), run_seeded(calls)
    assert state == run_seeded(lambda: None)[1]
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert len({y.sum().item() for y in first}) == 4
    assert torch.equal(aug(x, seed=3), first[3])


def test_a_batch_has_one_transform_or_one_an_image():
    x = images((1, 3, 16, 16)).expand(30, -1, -1, -1)
    for rng in ("legacy", "fast"):
        for strategy in STRATEGIES:
            together = DiffAug(strategy, batch=True, rng=rng)(x)
            assert torch.equal(together, together[:1].expand(30, -1, -1, -1))
            each = DiffAug(strategy, batch=False, rng=rng)(x)
            assert len(each.flatten(1).unique(dim=0)) > 1


def test_flip_color_and_cutout_are_always_applied_and_one_of_the_others(monkeypatch):
    """In the fast mode, of whose draws the other tests know nothing."""
    seed_fast(0)
    applied = []
    for function, operation in list(augmentation._OPERATIONS.items()):
        name = function.__name__.removesuffix("_fn")
        monkeypatch.setitem(
            augmentation._OPERATIONS,
            function,
            lambda passes, draws, settings, name=name, operation=operation: (
                applied.append(name) or operation(passes, draws, settings)
            ),
        )
    x = images((4, 3, 8, 8))
    aug = DiffAug("color_crop_cutout_flip_scale_rotate", rng="fast")
    chosen = []
    for _ in range(300):
        applied.clear()
        aug(x)
        *before, one, last = applied
        assert (before, last) == (["flip", "brightness", "saturation", "contrast"], "cutout")
        chosen.append(one)
    # Binomial: 100 and, of 300, five standard deviations of 8.2.
    assert all(60 < chosen.count(name) < 140 for name in ("crop", "scale", "rotate"))
    applied.clear()
    aug(x, single_aug=False)
    assert applied == ["flip", "brightness", "saturation", "contrast", "crop", "scale", "rotate", "cutout"]
    applied.clear()
    DiffAug("flip_color", single=True, rng="fast")(x)
    assert applied in (["flip"], ["brightness", "saturation", "contrast"])


def test_fast_draws_are_uniform_and_of_their_own():
    """With a seed, the published code makes all draws alike; the fast mode does not."""
    x = torch.tensor([1.0, -1.0]).view(1, 2, 1, 1).expand(3000, 2, 1, 1)
    y = DiffAug("color", rng="fast")(x, seed=5)[..., 0, 0]
    brightness, spread = y.mean(1), (y[:, 0] - y[:, 1]) / 2
    # u - 0.5, and the product of 2 u and u + 0.5: mean and variance, five standard errors.
    assert abs(brightness.mean()) < 5 * math.sqrt(1 / 12 / 3000)
    assert abs(spread.mean() - 1) < 5 * math.sqrt(4 / 9 / 3000)
    assert abs(torch.corrcoef(torch.stack([brightness, spread]))[0, 1]) < 5 / math.sqrt(3000)


def test_changed_ranges_are_honoured():
    x = images((4, 3, 16, 16))
    for rng in ("legacy", "fast"):
        aug = DiffAug("flip_crop_cutout", rng=rng)
        aug.prob_flip, aug.ratio_crop_pad, aug.ratio_cutout = 1.0, 0.0, 0.0
        assert torch.equal(aug(x), x.flip(3))
        aug.ratio_cutout = 2.0
        assert not aug(x).any()


def test_overridden_and_added_functions_are_called():
    class Own(DiffAug):
        def flip_fn(self, x, batch=True):
            return -x

    x = images((4, 3, 16, 16))
    aug = Own("flip_double_crop", rng="fast")
    aug.ratio_crop_pad = 0.0
    aug.aug_fn["double"] = [lambda x, batch: 2 * x]
    assert torch.equal(aug(x, single_aug=False), -2 * x)


@pytest.mark.parametrize("name", OPS)
def test_the_functions_by_themselves(name):
    x = images((4, 3, 16, 16))
    aug = DiffAug(rng="legacy")
    for batch in (True, False):
        expected, before = run_seeded(lambda batch=batch: DiffAug(name, batch, single=True, rng="legacy")(x))
        functions = aug.aug_fn[name]

        def one_by_one(batch=batch, functions=functions):
            # The choice among one operation.
            np.random.randint(1)
            y = x
            for function in functions:
                y = function(y, batch)
            return y

        got, after = run_seeded(one_by_one)
        assert before == after
        torch.testing.assert_close(got, expected, rtol=0, atol=1e-6)


def test_no_strategy_returns_the_batch_itself():
    x = images((2, 3, 4, 4))
    for strategy in ("", "none", "None"):
        assert DiffAug(strategy)(x) is x


def test_the_mode_is_the_one_set_at_the_call():
    x, aug = images((6, 3, 8, 8)), DiffAug("crop", batch=True)
    with use_rng("legacy"):
        a, state = run_seeded(lambda: aug(x, seed=9))
    assert state[1] == 9
    assert torch.equal(a, DiffAug("crop", batch=True, rng="legacy")(x, seed=9))


def test_errors():
    x = images((2, 3, 4, 4))
    with pytest.raises(ValueError, match="unknown augmentation 'blur'"):
        DiffAug("color_blur")(x)
    with pytest.raises(ValueError, match=r"floating point.*torch\.uint8"):
        DiffAug("color")(x.byte())
    with pytest.raises(ValueError, match="rng must be one of fast, legacy, not 'old'"):
        DiffAug("color", rng="old")


def test_upstream(upstream):
    published = upstream("idc")[1]["misc.augment"].DiffAug
    x, g = images((7, 3, 20, 32)).requires_grad_(), images((7, 3, 20, 32), seed=1)
    for strategy in STRATEGIES:
        for batch in (True, False):
            for single_aug in (True, False):
                for seed in (-1, 0, 5):
                    results = []
                    for aug in (published(strategy, batch), DiffAug(strategy, batch, rng="legacy")):
                        y, state = run_seeded(lambda: aug(x, single_aug, seed))  # noqa: B023
                        results.append((y, torch.autograd.grad(y, x, g)[0], state))
                    (expected, expected_grad, before), (got, grad, after) = results
                    torch.testing.assert_close(got, expected, rtol=0, atol=1e-5)
                    torch.testing.assert_close(grad, expected_grad, rtol=0, atol=2e-5)
                    assert before == after
    theirs, mine = vars(published()), vars(DiffAug())
    assert {name: mine[name] for name in theirs if name != "aug_fn"} == {
        k: v for k, v in theirs.items() if k != "aug_fn"
    }
    assert set(mine["aug_fn"]) == set(theirs["aug_fn"])
