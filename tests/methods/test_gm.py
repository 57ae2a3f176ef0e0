"""DC and DSA with every debias mode against the literal loop over classes and segments, in fp64."""

import copy
from dataclasses import replace

import pytest
import torch
from torch.nn.functional import cross_entropy

from fastdd import debias, models, ops
from fastdd.bench.oracles import ORACLES
from fastdd.bench.oracles.dc import match
from fastdd.core import rng
from fastdd.data import DeviceImages
from fastdd.methods import dc

C, G, IPC, SIZE = 4, 3, 2, 8
SIZES = [9, 17, 4, 12]
DSA = "color_crop_cutout_flip_scale_rotate"


def problem(net_name="ConvNetD2", strategy=DSA):
    """Real images that are exact in fp64, a batch with weights and a class that lacks two groups, a synthetic set."""
    total = sum(SIZES)
    pixels = rng.normal(rng.key(0, "pixels"), total * 3 * SIZE * SIZE).view(total, 3, SIZE, SIZE).double()
    classes = torch.arange(C).repeat_interleave(torch.tensor(SIZES))
    groups = (rng.uniform(rng.key(0, "groups"), total) * G).long()
    groups[classes == 2] = 1
    counts = torch.bincount(classes * G + groups, minlength=C * G).view(C, G)
    weights = rng.uniform(rng.key(0, "weights"), total) + 0.1
    batch = debias.Batch(torch.arange(total), classes, groups, C, G, counts, weights)
    synthetic = rng.normal(rng.key(0, "syn"), C * IPC * 3 * SIZE * SIZE).view(C * IPC, 3, SIZE, SIZE).double()
    net = models.build(net_name, 3, C, (SIZE, SIZE), width=8, key=5).double().train()
    real = DeviceImages(pixels)
    dc.calibrate_norms(net, real, batch.rows[::3])
    params = ops.dsa_params(strategy, rng.lanes(rng.key(0, "dsa"), C), (SIZE, SIZE), dtype=torch.float64)
    return net, real, batch, synthetic, params


def segments(batch, mode):
    needs_weights = debias.mode(mode).needs == "weights"
    return debias.mode(mode).segments(batch if needs_weights else replace(batch, weights=None))


def literal(net, real, segments, synthetic, params, metric="ours"):
    images = synthetic.detach().requires_grad_()
    loss = ORACLES["dc"](net, real.pixels, segments, images, params, metric=metric)
    return loss.detach(), torch.autograd.grad(loss, images)[0]


def check(ours, truth, tolerance=1e-10):
    (loss, gradient), (expected_loss, expected) = ours, truth
    assert abs(loss - expected_loss) <= tolerance * abs(expected_loss)
    assert (gradient - expected).norm() <= tolerance * expected.norm()


@pytest.mark.parametrize("metric", ["ours", "mse", "cos"])
@pytest.mark.parametrize("mode", debias.MODES)
@pytest.mark.parametrize("strategy", ["none", DSA])
def test_equals_the_literal_loop(strategy, mode, metric):
    net, real, batch, synthetic, params = problem(strategy=strategy)
    of_mode = segments(replace(batch, embeddings=net.embed(real.pixels[batch.rows]).detach()), mode)
    ours = dc.loss_and_gradient(net, real, of_mode, synthetic, params, metric=metric)
    check(ours, literal(net, real, of_mode, synthetic, params, metric))


@pytest.mark.parametrize("net_name", ["ConvNetBN", "ConvNetLN", "ConvNetNN", "ConvNetASwish", "ConvNetMP"])
def test_equals_the_literal_loop_for_other_networks(net_name):
    net, real, batch, synthetic, params = problem(net_name)
    fair = segments(batch, "fairdd")
    check(dc.loss_and_gradient(net, real, fair, synthetic, params), literal(net, real, fair, synthetic, params))


def test_absent_groups_pull_nothing():
    """A batch of one group is matched as a class is."""
    net, real, batch, synthetic, params = problem()
    batch = replace(batch, groups=torch.ones_like(batch.groups), weights=None)
    fair = dc.loss_and_gradient(net, real, debias.mode("fairdd").segments(batch), synthetic, params)
    check(fair, dc.loss_and_gradient(net, real, debias.mode("none").segments(batch), synthetic, params), 1e-12)


@pytest.mark.parametrize("mode", ["fairdd", "fairdd-iw", "fairdd-groupdro"])
def test_classes_and_segments_at_a_time_do_not_change_the_result(monkeypatch, mode):
    """What GPUs do (all classes at once), and what little memory does (a segment at a time)."""
    net, real, batch, synthetic, params = problem()
    made = segments(batch, mode)
    one = dc.loss_and_gradient(net, real, made, synthetic, params, at_once=1)
    with monkeypatch.context() as patch:
        check(dc.loss_and_gradient(net, real, made, synthetic, params), one, 1e-12)
        patch.setitem(dc._GRADIENT_BYTES, "cpu", 1)
        check(dc.loss_and_gradient(net, real, made, synthetic, params), one, 1e-12)


def test_weightings_are_the_sums_of_their_groups():
    net, real, batch, synthetic, params = problem()
    fair = segments(batch, "fairdd")
    alone = []
    for s in range(C * G):
        only = replace(fair, importance=torch.arange(C * G).eq(s).float())
        alone.append(dc.loss_and_gradient(net, real, only, synthetic, params))
    for mode in ("fairdd-iw", "fairdd-ldam"):
        made = segments(batch, mode)
        expected = [sum(f.double() * x[i] for f, x in zip(made.importance, alone, strict=True)) for i in (0, 1)]
        check(dc.loss_and_gradient(net, real, made, synthetic, params), expected)
    losses = torch.stack([loss for loss, _ in alone]).view(C, G)
    worst = losses.argmax(1) + torch.arange(C) * G
    expected = [sum(alone[s][i] for s in worst) for i in (0, 1)]
    check(dc.loss_and_gradient(net, real, segments(batch, "fairdd-groupdro"), synthetic, params), expected)


def test_two_runs_have_the_same_bits_and_the_network_is_left_alone():
    net, real, batch, synthetic, params = problem()
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    made = segments(batch, "fairdd")
    (a, ga), (b, gb) = (dc.loss_and_gradient(net, real, made, synthetic, params) for _ in range(2))
    assert torch.equal(a, b)
    assert torch.equal(ga, gb)
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())
    assert all(p.grad is None for p in net.parameters())


def test_bf16_is_for_the_real_side_only():
    """Its error is held to twice that of plain PyTorch's bfloat16 gradients, matched in fp64."""
    net, real, batch, synthetic, params = problem("ConvNetASwish", "none")
    made = segments(batch, "none")
    truth = dc.loss_and_gradient(net, real, made, synthetic, params)
    half = copy.deepcopy(net).bfloat16()
    images, loss = synthetic.detach().requires_grad_(), 0.0
    for c in range(C):
        labels = torch.full((SIZES[c],), c)
        plain = torch.autograd.grad(
            cross_entropy(half(real.pixels[batch.classes == c].bfloat16()), labels), [*half.parameters()]
        )
        value = cross_entropy(net(images[c * IPC : (c + 1) * IPC]), labels.new_full((IPC,), c))
        own = torch.autograd.grad(value, [*net.parameters()], create_graph=True)
        loss = loss + match(own, [g.double() for g in plain], "ours")
    (plain_gradient,) = torch.autograd.grad(loss, images)
    net, real = net.float(), DeviceImages(real.pixels.float())
    single, ours = (
        dc.loss_and_gradient(net, real, made, synthetic.float(), params.float(), precision=precision)
        for precision in ("fp32", "bf16")
    )
    check(single, truth, 1e-4)
    assert ours[0].dtype == ours[1].dtype == torch.float32
    error = (ours[1] - truth[1]).norm()
    assert 10 * (single[1] - truth[1]).norm() < error <= 2 * (plain_gradient - truth[1]).norm()


def test_calibration_freezes_batch_norms_only():
    net, real, batch, *_ = problem("ConvNetBN")
    norms = [layer for layer in net.modules() if isinstance(layer, torch.nn.BatchNorm2d)]
    assert not any(layer.training for layer in norms)
    assert net.training
    first = net.features[0](real.pixels[batch.rows[::3]])
    expected = 0.1 * first.mean((0, 2, 3))
    torch.testing.assert_close(norms[0].running_mean, expected)


def test_loops():
    published = {1: (1, 1), 10: (10, 50), 20: (20, 25), 30: (30, 20), 40: (40, 15), 50: (50, 10), 51: (100, 10)}
    assert {ipc: dc.loops(ipc) for ipc in published} == published
    for ipc in range(2, 50):
        outer, inner = dc.loops(ipc)
        assert outer == ipc
        assert 10 <= inner <= 50
