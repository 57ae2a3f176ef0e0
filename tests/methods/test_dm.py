"""DM with every debias mode against the literal loop over classes and segments, in fp64."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from fastdd import debias, models, ops
from fastdd.bench.oracles import ORACLES
from fastdd.core import rng
from fastdd.data import DeviceImages
from fastdd.methods import dm

C, G, IPC = 4, 3, 5
SIZES = [9, 17, 4, 12]


def problem(net_name="ConvNet", size=16):
    """Real images that are exact in fp64 (float pixels, already normalised), a batch, a synthetic set, DSA rows."""
    total = sum(SIZES)
    pixels = rng.normal(rng.key(0, "pixels"), total * 3 * size * size).view(total, 3, size, size).double()
    classes = torch.arange(C).repeat_interleave(torch.tensor(SIZES))
    groups = (rng.uniform(rng.key(0, "groups"), total) * G).long()
    groups[classes == 2] = 1  # a class that lacks two groups
    rows = torch.arange(total)
    counts = torch.bincount(classes * G + groups, minlength=C * G).view(C, G)
    batch = debias.Batch(rows, classes, groups, C, G, counts)
    synthetic = rng.normal(rng.key(0, "syn"), C * IPC * 3 * size * size).view(C * IPC, 3, size, size).double()
    net = models.build(net_name, 3, C, (size, size), width=8)
    models.ParameterInit(net).fill(5)
    net = net.double().requires_grad_(False).train()
    keys = rng.lanes(rng.key(0, "dsa"), C)
    params = ops.dsa_params("color_crop_cutout_flip_scale_rotate", keys, (size, size)).double()
    return net, DeviceImages(pixels), batch, synthetic.requires_grad_(), params


def loss(net, real, segments, *arguments, **options):
    return segments.total(dm.distances(net, real, segments, *arguments, **options))


@pytest.mark.parametrize("mode", debias.MODES)
@pytest.mark.parametrize(
    ("net_name", "metric"),
    [(name, "l2") for name in ("ConvNet", "ConvNetBN", "ConvNetLN", "ConvNetNN")]
    + [("ConvNet", "l1"), ("ConvNet", "cos")],
)
def test_equals_the_literal_loop(mode, net_name, metric):
    net, real, batch, synthetic, params = problem(net_name)
    if debias.mode(mode).needs == "weights":
        batch = replace(batch, weights=rng.uniform(rng.key(0, "weights"), len(batch.rows)) + 0.1)
    segments = debias.mode(mode).segments(replace(batch, embeddings=net.embed(real.pixels[batch.rows]).detach()))
    ours = loss(net, real, segments, synthetic, params, metric=metric)
    truth = ORACLES["dm"](net, real.pixels, segments, synthetic, params, metric=metric)
    (gradient,) = torch.autograd.grad(ours, synthetic)
    (expected,) = torch.autograd.grad(truth, synthetic)
    assert abs(ours - truth) <= 1e-12 * abs(truth)
    assert (gradient - expected).norm() <= 1e-12 * expected.norm()


def target_means(net, real, segments, params, precision="fp32"):
    """What the loss pulls toward, [S, D]; zeros for an empty segment."""
    return ops.segment_mean(
        dm.real_embeddings(net, real, segments, params, precision), segments.offsets, segments.weights
    )


def test_fairdd_is_dm_toward_the_mean_of_group_means():
    """G * ||mean of group means - s||^2 has the same gradient (methods' algebra), for classes that have all groups."""
    net, real, batch, synthetic, params = problem()
    batch = debias.Batch(batch.rows, batch.classes, batch.rows % G, C, G)
    segments = debias.mode("fairdd").segments(batch)
    (gradient,) = torch.autograd.grad(loss(net, real, segments, synthetic, params), synthetic)
    means = target_means(net, real, segments, params).view(C, G, -1).mean(1)
    classes = torch.arange(C).repeat_interleave(IPC)
    own = net.embed(ops.augment(synthetic, params, classes)).view(C, IPC, -1).mean(1)
    (expected,) = torch.autograd.grad(G * (means - own).square().sum(), synthetic)
    assert (gradient - expected).norm() <= 1e-12 * expected.norm()


def test_absent_groups_pull_nothing():
    net, real, batch, synthetic, params = problem()
    means = target_means(net, real, debias.mode("fairdd").segments(batch), params)
    assert (means[2 * G] == 0).all()
    assert (means[2 * G + 2] == 0).all()
    empty = debias.Batch(batch.rows, batch.classes, torch.zeros_like(batch.groups), C, G)
    only_first = loss(net, real, debias.mode("fairdd").segments(empty), synthetic, params)
    vanilla = loss(net, real, debias.mode("none").segments(empty), synthetic, params)
    assert abs(only_first - vanilla) <= 1e-12 * abs(vanilla)


def test_uint8_pixels_equal_normalised_floats():
    _, _, batch, _, params = problem()
    pixels = (rng.uniform(rng.key(1, "u8"), sum(SIZES) * 3 * 256) * 256).to(torch.uint8).view(-1, 3, 16, 16)
    mean, std = torch.tensor([0.5, 0.4, 0.3]), torch.tensor([0.2, 0.3, 0.4])
    floats = (pixels.double() / 255 - mean.view(3, 1, 1)) / std.view(3, 1, 1)
    net = models.build("ConvNet", 3, C, (16, 16), width=8).requires_grad_(False)
    segments = debias.mode("none").segments(batch)
    ours = target_means(net, DeviceImages(pixels, mean, std), segments, params)
    truth = target_means(net.double(), DeviceImages(floats), segments, params)
    assert (ours - truth).norm() <= 2e-6 * truth.norm()


def test_chunks_do_not_change_the_result(monkeypatch):
    net, real, batch, _, params = problem()
    segments = debias.mode("fairdd").segments(batch)
    whole = target_means(net, real, segments, params)
    monkeypatch.setattr(models, "embedder_chunk", lambda *_: 7)
    assert (target_means(net, real, segments, params) - whole).abs().max() <= 1e-14


def test_bf16_is_for_the_embeddings_of_real_images_only():
    net, real, batch, synthetic, params = problem()
    segments = debias.mode("fairdd").segments(batch)
    truth = target_means(net, real, segments, params)
    net, synthetic = net.float(), synthetic.detach().float().requires_grad_()
    real = DeviceImages(real.pixels.float())
    embeddings = dm.real_embeddings(net, real, segments, params, "bf16")
    assert embeddings.dtype == torch.bfloat16
    means = target_means(net, real, segments, params, "bf16")
    assert means.dtype == torch.float32
    assert 0 < (means - truth).norm() <= 1e-2 * truth.norm()
    value = loss(net, real, segments, synthetic, params, "bf16")
    (gradient,) = torch.autograd.grad(value, synthetic)
    (single,) = torch.autograd.grad(loss(net, real, segments, synthetic, params), synthetic)
    assert value.dtype == gradient.dtype == torch.float32
    assert 0 < (gradient - single).norm() <= 3e-2 * single.norm()


class Pixels(nn.Module):
    """A network whose embedding is the pixels."""

    def __init__(self):
        super().__init__()
        self.classifier = nn.Linear(3, 1)

    def embed(self, images):
        return images.flatten(1)

    def embedder(self, dtype=None):
        return self.embed


# Of one class four groups of 3, 2, 1 and 1 images, of three pixels each; the means of the groups are below.
MEANS = torch.tensor([[0.0, 10.0, -3.0], [2.0, 0.0, -3.0], [4.0, 2.0, 5.0], [30.0, 4.0, 9.0]], dtype=torch.float64)
MEDIAN = [3.0, 3.0, 1.0]  # half way between the middle two of four


def toward_groups(means, target, metric):
    """FairDD's loss of a set with one image, and its gradient, on real images whose groups have these means."""
    groups = torch.tensor([0, 0, 0, 1, 1, 2, 3])
    off = torch.tensor([-1.0, 0, 1, -2, 2, 0, 0], dtype=torch.float64)[:, None]
    pixels = (means[groups] + off).view(7, 3, 1, 1)
    batch = debias.Batch(torch.arange(7), torch.zeros(7, dtype=torch.long), groups, 1, 4)
    image = torch.as_tensor(target, dtype=torch.float64).view(1, 3, 1, 1)
    plain = ops.dsa_params("none", rng.lanes(rng.key(0, "dsa"), 1), (1, 1)).double()
    segments = debias.mode("fairdd").segments(batch)
    found, pull = dm.loss_and_gradient(Pixels(), DeviceImages(pixels), segments, image, plain, metric=metric)
    return found.item(), pull.flatten()


def test_the_minimum_of_l1_is_the_median_of_the_groups_means_and_that_of_l2_is_their_mean():
    """FairDD's theorem 5.1 has the mean for both; for absolute differences that is wrong."""
    mean = MEANS.mean(0)
    assert mean.tolist() == [9, 4, 2]
    lowest, pull = toward_groups(MEANS, MEDIAN, "l1")
    assert lowest == (3 + 1 + 1 + 27) + (7 + 3 + 1 + 1) + (4 + 4 + 4 + 8)
    assert (pull == 0).all()
    assert toward_groups(MEANS, mean, "l1")[0] > lowest
    assert (toward_groups(MEANS, mean, "l2")[1] == 0).all()
    assert (toward_groups(MEANS, MEDIAN, "l2")[1] != 0).any()


def test_the_minimum_of_cos_is_the_direction_of_the_groups_directions_whatever_their_lengths():
    means = torch.tensor([[3.0, 0, 0], [0, 50, 0], [0, 0, 7], [0, 0, 100]], dtype=torch.float64)
    _, pull = toward_groups(means, [1, 1, 2], "cos")
    assert pull.norm() <= 1e-5  # published epsilon: 1e-6 of the lengths
    assert toward_groups(means, means.mean(0), "cos")[1].norm() > 1e-2


def test_the_metric_reaches_the_step_and_classes_at_a_time_do_not_change_it():
    net, real, batch, synthetic, params = problem()
    segments = debias.mode("fairdd").segments(batch)
    for metric in ("l2", "l1", "cos"):
        whole = dm.loss_and_gradient(net, real, segments, synthetic, params, metric=metric)
        assert whole[0] == loss(net, real, segments, synthetic, params, metric=metric)
        parts = dm.loss_and_gradient(net, real, segments, synthetic, params, metric=metric, at_once=3)
        assert abs(parts[0] - whole[0]) <= 1e-12 * whole[0]
        assert (parts[1] - whole[1]).norm() <= 1e-12 * whole[1].norm()
