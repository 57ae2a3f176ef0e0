"""Matching losses under the published names, against literal loops in fp64 and the original code."""

from argparse import Namespace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from fastdd import compat, models, ops
from fastdd.compat import dc
from fastdd.core import rng

C, IPC, BATCH, SIDE = 3, 2, 20, 16
DSA = "color_crop_cutout_flip_scale_rotate"
SHAPES = ((5, 3, 3, 3), (5,), (5, 4, 4), (7, 12), (7,))


def arguments(**given) -> Namespace:
    settings = {"device": "cpu", "dsa": False, "dsa_strategy": DSA, "dsa_param": dc.ParamDiffAug()}
    return Namespace(**(settings | {"num_classes": C, "ipc": IPC, "batch_real": BATCH, "dis_metric": "ours"} | given))


def normal(stream: str, *shape: int, dtype=torch.float64) -> torch.Tensor:
    return rng.normal(rng.key(0, stream), int(np.prod(shape))).view(shape).to(dtype)


def gradients(dtype=torch.float64) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    real = [normal(f"real{i}", *shape, dtype=dtype) for i, shape in enumerate(SHAPES)]
    synthetic = [normal(f"syn{i}", *shape, dtype=dtype).requires_grad_() for i, shape in enumerate(SHAPES)]
    return real, synthetic


def literal_match(synthetic, real, metric):
    """The published distance: sums over layers, or over everything as one vector."""
    if metric != "ours":
        s, r = (torch.cat([g.reshape(-1) for g in side]) for side in (synthetic, real))
        return ((s - r) ** 2).sum() if metric == "mse" else 1 - (s * r).sum() / (s.norm() * r.norm() + 1e-6)
    total = synthetic[0].new_zeros(())
    for s, r in zip(synthetic, real, strict=True):
        if s.dim() > 1:
            s, r = s.flatten(1), r.flatten(1)
            total = total + (1 - (s * r).sum(1) / (s.norm(dim=1) * r.norm(dim=1) + 1e-6)).sum()
    return total


def derivatives(loss, synthetic):
    """The value, its gradient, and the gradient of a function of that."""
    first = torch.autograd.grad(loss, synthetic, create_graph=True, materialize_grads=True)
    second = torch.autograd.grad(sum(g.sin().sum() for g in first), synthetic, materialize_grads=True)
    return [loss.detach(), *(g.detach() for g in first), *second]


@pytest.mark.parametrize("metric", ["ours", "mse", "cos"])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-4)])
def test_match_loss_and_both_derivatives(metric, dtype, tolerance):
    real, synthetic = gradients(dtype)
    found = derivatives(dc.match_loss(synthetic, real, arguments(dis_metric=metric)), synthetic)
    expected = derivatives(literal_match(synthetic, real, metric), synthetic)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance * 10)


@pytest.mark.parametrize("metric", ["ours", "mse", "cos"])
def test_match_loss_takes_what_autograd_gives(metric):
    real, synthetic = gradients()
    args, expected = arguments(dis_metric=metric), literal_match(*gradients()[::-1], metric)
    strided = [
        torch.stack([g, g], -1)[..., 0] if g.dim() < 4 else g.contiguous(memory_format=torch.channels_last)
        for g in real
    ]
    assert not all(g.is_contiguous() for g in strided)
    for r, s in ((tuple(real), tuple(synthetic)), (strided, synthetic), (real, [g.detach() for g in synthetic])):
        torch.testing.assert_close(dc.match_loss(s, r, args), expected, rtol=1e-12, atol=0)


def test_rows_and_vectors_of_one_layer():
    real, synthetic = gradients()
    for r, s in zip(real, synthetic, strict=True):
        torch.testing.assert_close(
            dc.distance_wb(r, s), literal_match([s], [r], "ours"), rtol=1e-12, atol=0, check_dtype=False
        )
    nothing = dc.distance_wb(real[1], synthetic[1])
    assert (nothing.item(), nothing.shape, nothing.requires_grad) == (0, (), False)
    assert dc.match_loss([synthetic[1]], [real[1]], arguments()).item() == 0


def test_rows_of_zeros_have_the_published_gradient_and_a_second_derivative():
    real, synthetic = gradients()
    with torch.no_grad():
        synthetic[3][2] = 0
        real[3][4] = 0
    value, *found = derivatives(dc.match_loss(synthetic, real, arguments()), synthetic)
    expected = literal_match(synthetic, real, "ours")
    assert value.item() == pytest.approx(expected.item(), rel=1e-12)
    for a, b in zip(found, torch.autograd.grad(expected, synthetic, materialize_grads=True), strict=False):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)
    # The published one has NaNs here.
    assert all(g.isfinite().all() for g in found)


def test_an_unknown_metric_ends_the_script():
    real, synthetic = gradients()
    with pytest.raises(SystemExit, match="unknown distance function: l7"):
        dc.match_loss(synthetic, real, arguments(dis_metric="l7"))
    with pytest.raises(SystemExit, match="unknown distance function: l7"):
        dc.dc_loss(network(), pool(1)[0], synthetic_images(), arguments(dis_metric="l7"))


def pool(groups: int, sizes=(40, 40, 40)):
    """``get_images`` over a few images with groups of odd numbers, of which class 1 has but one; and what it draws
    from."""
    labels = torch.arange(C).repeat_interleave(torch.tensor(sizes))
    images = normal("pool", len(labels), 3, SIDE, SIDE)
    of = (rng.uniform(rng.key(0, "pool-groups"), len(labels)) * groups).long() * 7 + 3
    of[labels == 1] = 3

    def get_images(c, n):
        rows = np.random.permutation(np.flatnonzero(labels == c))[:n]
        return images[rows], labels[rows], of[rows]

    return get_images, (images, labels, of)


def network(name: str = "ConvNetASwish", frozen: bool = False) -> nn.Module:
    return models.build(name, 3, C, (SIDE, SIDE), width=8, depth=2, key=3).double().requires_grad_(not frozen)


class Foreign(nn.Module):
    """A script's own network."""

    def __init__(self, norm: bool = False):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(3)
            self.layers = nn.Sequential(
                nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6) if norm else nn.Identity(), nn.SiLU(), nn.AvgPool2d(4)
            )
            self.classifier = nn.Linear(54, C)
        self.double()

    def embed(self, x):
        x = self.layers(x)
        return x.view(len(x), -1)

    def forward(self, x):
        return self.classifier(self.embed(x))


def synthetic_images(dtype=torch.float64) -> torch.Tensor:
    return normal("synthetic", C * IPC, 3, SIDE, SIDE, dtype=dtype).requires_grad_()


def literal_loss(method, fair, net, get_images, image_syn, args, augmented, jointly=False):
    """The published loops over classes (and groups); ``augmented(c, images)`` augments those of a class."""
    total = image_syn.new_zeros(())
    reals, owns, groups = [], [], []
    for c, own in enumerate(image_syn.split(IPC)):
        real, _, group = get_images(c, args.batch_real)
        real, own = augmented(c, real), augmented(c, own)
        reals.append(real)
        owns.append(own)
        groups.append(group.unique().tolist() if fair else [None])
        parts = [slice(None) if g is None else group == g for g in groups[-1]]
        if method == "dm" and not jointly:
            pulling, mean = net.embed(real).detach(), net.embed(own).mean(0)
            total = total + sum((pulling[part].mean(0) - mean).square().sum() for part in parts)
        elif method == "dc":
            parameters, logits = [*net.parameters()], net(real)
            loss = F.cross_entropy(net(own), torch.full((len(own),), c))
            gw_syn = torch.autograd.grad(loss, parameters, create_graph=True)
            for part in parts:
                loss = F.cross_entropy(logits[part], torch.full((len(real),), c)[part])
                gw_real = torch.autograd.grad(loss, parameters, retain_graph=True)
                total = total + literal_match(gw_syn, gw_real, args.dis_metric)
    if jointly:
        pulling, own = net.embed(torch.cat(reals)).detach(), net.embed(torch.cat(owns))
        distances = pulling.view(C, BATCH, -1).mean(1) - own.view(C, IPC, -1).mean(1)
        total = distances.square().sum()
    return total


LOSSES = {
    ("dm", False): dc.dm_loss,
    ("dm", True): dc.fairdd_dm_loss,
    ("dc", False): dc.dc_loss,
    ("dc", True): dc.fairdd_dc_loss,
}


def compare(loss, expected, found_in, expected_in, tolerance=1e-10):
    expected.backward()
    (2 * loss).backward()
    assert loss.item() == pytest.approx(expected.item(), rel=tolerance)
    torch.testing.assert_close(found_in.grad, 2 * expected_in.grad, rtol=tolerance, atol=tolerance)


def unaugmented(c, images):
    return images


@pytest.mark.parametrize("groups", [1, 2, 10])
@pytest.mark.parametrize(("method", "fair"), LOSSES)
def test_a_step_is_the_literal_loop(method, fair, groups):
    get_images, _ = pool(groups)
    args, ours, theirs = arguments(), synthetic_images(), synthetic_images()
    np.random.seed(1)
    expected = literal_loss(method, fair, network(), get_images, theirs, args, unaugmented)
    np.random.seed(1)
    compare(LOSSES[method, fair](network(frozen=method == "dm"), get_images, ours, args), expected, ours, theirs)


@pytest.mark.parametrize("metric", ["mse", "cos"])
@pytest.mark.parametrize("fair", [False, True])
def test_the_other_metrics(metric, fair):
    get_images, _ = pool(2)
    args, ours, theirs = arguments(dis_metric=metric), synthetic_images(), synthetic_images()
    np.random.seed(1)
    expected = literal_loss("dc", fair, network(), get_images, theirs, args, unaugmented)
    np.random.seed(1)
    compare(LOSSES["dc", fair](network(), get_images, ours, args), expected, ours, theirs)


@pytest.mark.parametrize(("method", "fair"), LOSSES)
def test_legacy_augments_with_the_seed_that_the_loop_takes_from_the_clock(method, fair, monkeypatch):
    monkeypatch.setattr("time.time", lambda: 12.345)
    get_images, _ = pool(2)
    args, ours, theirs = arguments(dsa=True), synthetic_images(), synthetic_images()

    def augmented(c, images):
        return dc.DiffAugment(images, DSA, seed=12345, param=args.dsa_param, rng="legacy")

    np.random.seed(1)
    expected = literal_loss(method, fair, network(), get_images, theirs, args, augmented)
    after = torch.get_rng_state()
    torch.manual_seed(0)
    np.random.seed(1)
    loss = LOSSES[method, fair](network(frozen=method == "dm"), get_images, ours, args, rng="legacy")
    compare(loss, expected, ours, theirs)
    assert torch.equal(torch.get_rng_state(), after)


@pytest.mark.parametrize(("method", "fair"), LOSSES)
@pytest.mark.parametrize("setting", ["published", "other ranges", "an operation twice", "all operations"])
def test_fast_augments_real_and_synthetic_images_of_a_class_alike(method, fair, setting):
    get_images, _ = pool(2)
    args, ours, theirs = arguments(dsa=True), synthetic_images(), synthetic_images()
    if setting == "other ranges":
        args.dsa_param.ratio_rotate = 90.0
    elif setting == "an operation twice":
        args.dsa_strategy = "flip_crop_flip"
    elif setting == "all operations":
        args.dsa_param.aug_mode = "M"
    compat.seed(8)
    seeds = rng.lanes(rng.key(8, "compat-matching-loss", 1), C)
    rows = ops.dsa_params(DSA, seeds, (SIDE, SIDE), dtype=torch.float64)

    def augmented(c, images):
        if setting == "published":
            return ops.augment(images, rows[c : c + 1])
        return dc.DiffAugment(images, args.dsa_strategy, seed=int(seeds[c]), param=args.dsa_param, rng="fast")

    np.random.seed(1)
    expected = literal_loss(method, fair, network(), get_images, theirs, args, augmented)
    np.random.seed(1)
    before = torch.get_rng_state()
    loss = LOSSES[method, fair](network(frozen=method == "dm"), get_images, ours, args, rng="fast")
    compare(loss, expected, ours, theirs)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(("method", "fair"), LOSSES)
def test_networks_of_a_scripts_own(method, fair):
    get_images, _ = pool(3)
    args, ours, theirs = arguments(), synthetic_images(), synthetic_images()
    np.random.seed(1)
    expected = literal_loss(method, fair, Foreign(), get_images, theirs, args, unaugmented)
    np.random.seed(1)
    compare(LOSSES[method, fair](nn.DataParallel(Foreign()), get_images, ours, args), expected, ours, theirs)


@pytest.mark.parametrize("fair", [False, True])
@pytest.mark.parametrize("make", [lambda: Foreign(norm=True), lambda: network("ConvNetBN")])
def test_batch_norm_mixes_what_it_mixes_in_the_published_loops(fair, make):
    get_images, _ = pool(3)
    args, ours, theirs = arguments(), synthetic_images(), synthetic_images()
    np.random.seed(1)
    expected = literal_loss("dm", fair, make().train(), get_images, theirs, args, unaugmented, jointly=not fair)
    np.random.seed(1)
    compare(LOSSES["dm", fair](make().train(), get_images, ours, args), expected, ours, theirs, 1e-7)


@pytest.mark.parametrize("fair", [False, True])
def test_gradient_matching_needs_frozen_batch_norm(fair):
    get_images, (images, *_) = pool(3)
    args, ours, theirs = arguments(), synthetic_images(), synthetic_images()
    with pytest.raises(ValueError, match=r"layers.1 \(BatchNorm2d\) is in training mode"):
        LOSSES["dc", fair](Foreign(norm=True), get_images, ours, args)
    net = Foreign(norm=True)
    net(images)
    for layer in net.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.eval()
    np.random.seed(1)
    expected = literal_loss("dc", fair, net, get_images, theirs, args, unaugmented)
    np.random.seed(1)
    compare(LOSSES["dc", fair](net, get_images, ours, args), expected, ours, theirs)


def test_gradients_add_up_and_the_networks_get_none():
    get_images, _ = pool(2)
    args, images, net = arguments(), synthetic_images(), network()
    for _ in range(2):
        np.random.seed(1)
        dc.fairdd_dc_loss(net, get_images, images, args).backward()
    twice = images.grad.clone()
    images.grad = None
    np.random.seed(1)
    dc.fairdd_dc_loss(net, get_images, images, args).backward()
    torch.testing.assert_close(twice, 2 * images.grad, rtol=1e-12, atol=0)
    assert all(p.grad is None for p in net.parameters())


def test_classes_follow_from_the_images_per_class():
    get_images, _ = pool(1)
    args, images = arguments(), synthetic_images()
    np.random.seed(1)
    expected = dc.dm_loss(network(), get_images, images, args)
    del args.num_classes
    np.random.seed(1)
    assert torch.equal(dc.dm_loss(network(), get_images, images, args), expected)
    args.num_classes = 4
    with pytest.raises(ValueError, match="6 images, which 4 classes can't share alike"):
        dc.dm_loss(network(), get_images, images, args)


def test_vanilla_losses_take_images_alone_and_fairdds_say_what_is_missing():
    get_images, _ = pool(1)
    args, images = arguments(), synthetic_images()
    for loss in (dc.dm_loss, dc.dc_loss):
        np.random.seed(1)
        expected = loss(network(), get_images, images, args)
        np.random.seed(1)
        assert torch.equal(loss(network(), lambda c, n: get_images(c, n)[0], images, args), expected)
    for loss in (dc.fairdd_dm_loss, dc.fairdd_dc_loss):
        with pytest.raises(ValueError, match=r"returns \(images, labels, groups\)"):
            loss(network(), lambda c, n: get_images(c, n)[0], images, args)


def test_classes_smaller_than_the_batch():
    get_images, _ = pool(2, sizes=(5, 40, 12))
    args, ours, theirs = arguments(), synthetic_images(), synthetic_images()
    np.random.seed(1)
    expected = literal_loss("dm", True, network(), get_images, theirs, args, unaugmented)
    np.random.seed(1)
    compare(dc.fairdd_dm_loss(network(), get_images, ours, args), expected, ours, theirs)


@pytest.mark.parametrize("with_groups", [False, True])
def test_real_images_are_drawn_as_published(with_groups):
    get_images, (images, labels, groups) = pool(4)
    draw = dc.RealImages(images, labels, groups if with_groups else None, rng="legacy")
    np.random.seed(2)
    expected = [get_images(c, 7) for c in range(C)]
    np.random.seed(2)
    for c, (image, label, group) in enumerate(expected):
        found = draw(c, 7)
        for a, b in zip(found, (image, label, group), strict=True) if with_groups else [(found, image)]:
            assert torch.equal(a, b)


def test_fast_real_images_are_each_at_most_once_of_the_class_and_repeat():
    images = torch.arange(60.0).view(60, 1, 1, 1)
    labels = torch.arange(60) % 3
    state = np.random.get_state()[1].copy()
    runs = []
    for _ in range(2):
        compat.seed(6)
        draw = dc.RealImages(images, labels, labels * 0, rng="fast")
        runs.append([draw(c, n) for c in range(3) for n in (5, 5, 100)])
    for number, (image, label, group) in enumerate(runs[0]):
        c, n = number // 3, (5, 5, 20)[number % 3]
        assert (len(image), label.unique().tolist()) == (n, [c])
        assert len(image.unique()) == len(group) == n
        assert torch.equal(image, runs[1][number][0])
    assert not torch.equal(runs[0][0][0], runs[0][1][0])
    assert np.array_equal(np.random.get_state()[1], state)


# The original code.


@pytest.mark.parametrize("metric", ["ours", "mse", "cos"])
@pytest.mark.parametrize("family", ["dc", "fairdd"])
def test_the_originals_match_loss(upstream, family, metric):
    utils, args = upstream(family)[1]["utils"], arguments(dis_metric=metric)
    # Its sum is float32 whatever the gradients are.
    for dtype, tolerance in ((torch.float64, 1e-11), (torch.float32, 1e-4)):
        real, synthetic = gradients(dtype)
        theirs, ours = (derivatives(module.match_loss(synthetic, real, args), synthetic) for module in (utils, dc))
        assert ours[0].item() == pytest.approx(theirs[0].item(), rel=1e-6)
        for a, b in zip(ours[1:], theirs[1:], strict=True):
            torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance * 10)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("method", "fair"), LOSSES)
def test_a_step_with_the_originals_functions_and_network(upstream, method, fair, monkeypatch):
    monkeypatch.setattr("time.time", lambda: 12.345)
    modules = upstream("fairdd")[1]
    utils = modules["utils"]
    get_images, _ = pool(4)
    args, ours, theirs = arguments(dsa=True), synthetic_images(), synthetic_images()

    def augmented(c, images):
        return utils.DiffAugment(images, DSA, seed=12345, param=args.dsa_param)

    found = []
    for of in (modules["networks"], dc):
        torch.manual_seed(3)
        net = of.ConvNet(3, C, 8, 2, "swish", "instancenorm", "avgpooling", (SIDE, SIDE))
        found.append(net.double())
    np.random.seed(1)
    expected = literal_loss(method, fair, found[0], get_images, theirs, args, augmented)
    np.random.seed(1)
    loss = LOSSES[method, fair](found[1], get_images, ours, args, rng="legacy")
    # Angles and offsets of its augmentation are float32.
    compare(loss, expected, ours, theirs, 1e-5)
