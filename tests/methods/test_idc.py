"""IDC: matching of convolutions, coasting classes, networks that train on real images."""

import copy
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from fastdd import models, ops
from fastdd.bench.oracles import idc as oracle
from fastdd.compat import idc as published
from fastdd.core import rng
from fastdd.data import Dataset, DeviceImages, Split
from fastdd.data.initial import first_images
from fastdd.debias import MODES, Batch
from fastdd.methods import Context, configure, dc
from fastdd.methods.dc import loss_and_gradient
from fastdd.methods.idc import Idc
from fastdd.methods.parts import real_networks
from fastdd.methods.parts.coasting import Coasting
from fastdd.methods.parts.formation import MultiFormation
from fastdd.methods.parts.networks import Fresh
from fastdd.methods.parts.real_networks import RealTraining, TrainedOnReal

C, G, PER_CLASS, SIZE, IPC = 3, 2, 10, 8, 2
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def data():
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (C * PER_CLASS, 3, SIZE, SIZE), dtype=np.uint8)
    groups = (np.arange(C * PER_CLASS) % 5 == 0).astype(np.int64)
    split = Split(images, np.arange(C).repeat(PER_CLASS), groups)
    return Dataset("made", split, split, ("a", "b", "c"), ("x", "y"), (0.4,) * 3, (0.25, 0.3, 0.2), {})


def normalised(data):
    mean, std = (torch.tensor(values).double().view(-1, 1, 1) for values in (data.mean, data.std))
    return (torch.from_numpy(data.train.images).double() / 255 - mean) / std


def network(seed=0):
    torch.manual_seed(seed)
    return models.build("ConvNetASwish", 3, C, (SIZE, SIZE), width=4, depth=2).double()


def idc(data, **settings):
    given = {"dataset": "made", "method": "idc", "ipc": IPC, "batch_real": 6, "width": 4, "depth": 2, "arch": "ConvNet"}
    few = {"iterations": 2, "outer_loop": 3, "train_images": 8, "batch_train": 4}
    config = configure(**{**given, **few, **settings})
    factor = config.factor if config.init == "mix" else 1
    images = first_images(data, config.ipc, 0, "real" if factor == 1 else "mix", factor=factor)
    return Idc(config, Context(data, CPU, images))


@pytest.mark.parametrize(("classes", "momentum", "inner"), [(3, 0.5, 2), (1, 0.5, 3), (7, 0.9, 4), (4, 0.0, 1)])
def test_classes_that_coast_are_one_optimiser_stepped_class_by_class(classes, momentum, inner):
    images = torch.rand(classes * IPC, 1, 2, 2, dtype=torch.float64)
    owners = torch.arange(classes).repeat_interleave(IPC)

    def pull(x):
        return torch.cos(3 * x) + x

    def gradient_of(x, label):
        return pull(x) * (owners == label).view(-1, 1, 1, 1)

    settings = {"lr": 0.1, "momentum": momentum}
    literal, buffer = oracle.sgd_in_turn(images, gradient_of, steps=9, inner=inner, num_classes=classes, **settings)
    found, momenta = images.clone(), torch.zeros_like(images)
    coasting = Coasting(owners.tolist(), classes, **settings)
    for step in range(9):
        if step % inner == 0:
            found.clamp_(0, 1)
        coasting.until_own_step(found, momenta)
        coasting.own_step(found, momenta, pull(found))
    torch.testing.assert_close(found, literal, rtol=0, atol=1e-13)
    if momentum:
        torch.testing.assert_close(momenta, buffer, rtol=0, atol=1e-13)


def matching(data, mode, metric, factor=2):
    """A matching step in float64: what it is of, its loss and its gradient."""
    torch.manual_seed(1)
    real, net = DeviceImages(normalised(data)), network()
    rows = torch.tensor([0, 1, 5, 7, 9, 10, 12, 15, 19, 20, 21, 25, 26])
    weights = torch.linspace(0.2, 2, len(rows)) if MODES[mode].needs == "weights" else None
    counts = torch.as_tensor(data.train.counts(C, G))
    groups = torch.as_tensor(data.train.groups)[rows]
    segments = MODES[mode].segments(Batch(rows, rows // PER_CLASS, groups, C, G, counts, weights))
    formation = MultiFormation(factor, data.mean, data.std)
    formation._mean, formation._std, formation._fill = (
        value.double() for value in (formation._mean, formation._std, formation._fill)
    )
    pixels = torch.rand(C * IPC, 3, SIZE, SIZE, dtype=torch.float64)
    keys = rng.lanes(rng.key(0, "augmentation"), C)
    params = ops.idc_params("color_crop_cutout", keys, (SIZE, SIZE), dtype=torch.float64)
    loss, gradient = loss_and_gradient(
        net, real, segments, pixels, params, metric=metric, formation=formation, parameters="conv"
    )
    return SimpleNamespace(
        net=net, real=real, segments=segments, formation=formation, pixels=pixels, params=params, loss=loss,
        gradient=gradient, rows=rows, groups=groups,
    )  # fmt: skip


# Clusters of a batch need what a network sees of it; they become FairDD's segments.
@pytest.mark.parametrize("mode", sorted(MODES.keys() - {"fairdd-batch"}))
@pytest.mark.parametrize("metric", ["l1", "mse"])
def test_a_matching_step_is_its_oracles_in_float64(data, mode, metric):
    found = matching(data, mode, metric)
    pixels = found.pixels.clone().requires_grad_()
    net = copy.deepcopy(found.net).requires_grad_(True)
    expected = oracle.loss(net, found.real.pixels, found.segments, found.formation(pixels), found.params, metric=metric)
    (gradient,) = torch.autograd.grad(expected, pixels)
    torch.testing.assert_close(found.loss, expected.detach(), rtol=1e-10, atol=0)
    torch.testing.assert_close(found.gradient, gradient, rtol=1e-10, atol=1e-10 * float(gradient.abs().max()))


@pytest.mark.parametrize("mode", ["none", "fairdd"])
@pytest.mark.parametrize("metric", ["l1", "mse"])
def test_a_matching_step_is_that_of_the_published_functions(data, mode, metric):
    """The published structure, by its restated functions: class by class, and with FairDD group by group."""
    found = matching(data, mode, metric)
    args = SimpleNamespace(ipc=IPC, factor=2, decode_type="single", match="grad", metric=metric, bias=False, fc=False)
    synthesizer = published.Synthesizer(args, C, 3, SIZE, SIZE, device="cpu")
    synthesizer.data = found.pixels.clone().requires_grad_()
    normalise, net = published.Normalize(data.mean, data.std), copy.deepcopy(found.net).requires_grad_(True)
    total = 0
    for label in range(C):
        parts, labels = synthesizer.sample(label)
        of_class = found.rows // PER_CLASS == label
        for group in [None] if mode == "none" else range(G):
            rows = found.rows[of_class if group is None else of_class & (found.groups == group)]
            images = torch.cat([found.real.pixels[rows], normalise(parts)])
            images = ops.augment_passes(images, found.params[label : label + 1])
            here = torch.full((len(rows),), label)
            total = total + published.matchloss(args, images[: len(rows)], images[len(rows) :], here, labels, net)
    (gradient,) = torch.autograd.grad(total, synthesizer.data)
    torch.testing.assert_close(found.loss, total.detach(), rtol=1e-6, atol=0)
    torch.testing.assert_close(found.gradient, gradient, rtol=1e-6, atol=1e-6 * float(gradient.abs().max()))


def test_a_step_sees_some_of_many_parts_each_once(data):
    method = idc(data, batch_synthetic=5)
    seen = []
    for number in (0, 1):
        method.match(number)
        seen.append(method._parts)
        assert method._parts.shape == (C, 5)
        assert all(len(set(of_class)) == 5 and max(of_class) < IPC * 4 for of_class in method._parts.tolist())
    assert not torch.equal(*seen)
    net, segments = network().float(), MODES["none"].segments(method._batch(0, None))
    params = ops.idc_params("none", rng.lanes(0, C), (SIZE, SIZE))
    images = method.images.detach()
    _, gradient = method._loss_and_gradient(net, segments, images, params)
    parts = method.formation(torch.arange(1.0, C * IPC + 1).view(-1, 1, 1, 1).expand(-1, 3, SIZE, SIZE))
    assert len(parts) == C * IPC * 4
    half = SIZE // 2
    quarters = gradient.unflatten(2, (2, half)).unflatten(4, (2, half)).abs().sum((1, 3, 5)) > 0
    expected = torch.zeros(C, IPC * 4, dtype=torch.bool).scatter(1, method._parts, True)
    assert torch.equal(quarters.view(C, -1), expected)


def test_all_parts_are_seen_where_they_are_few(data):
    method = idc(data, batch_synthetic=IPC * 4)
    method.match(0)
    assert method._parts is None


def test_images_return_into_their_bounds_before_a_network(data, monkeypatch):
    method = idc(data, lr_img=1e6)
    method.match(0)
    assert method.images.min() < 0 or method.images.max() > 1
    seen = []
    monkeypatch.setattr(method._coasting, "until_own_step", lambda images, _: seen.append(images.clone()))
    monkeypatch.setattr(method._coasting, "own_step", lambda *_: None)
    for number in (1, 2, 3):
        method.match(number)
    assert [bool(images.min() >= 0 and images.max() <= 1) for images in seen] == [False, False, True]


def test_the_learning_rate_grows_with_ipc_and_area(data):
    assert idc(data, lr_img=0.1, base_size=SIZE, ipc=5)._coasting._lr == pytest.approx(0.05)
    assert idc(data, lr_img=0.1, base_size=2 * SIZE, ipc=10)._coasting._lr == pytest.approx(0.025)


def test_noise_is_the_published_one_in_pixels(data):
    normal = torch.randn(C * IPC, 3, SIZE, SIZE)
    images = Idc.noise(normal, data)
    method = Idc(configure(dataset="made", method="idc", ipc=IPC, width=4, depth=2), Context(data, CPU, images))
    torch.testing.assert_close(method.images.detach(), (normal / 4 + 0.5).clamp(0, 1))


def test_a_factor_that_is_too_large_is_one_line(data):
    with pytest.raises(ValueError, match=f"factor must be 1 to {SIZE}") as error:
        idc(data, factor=9, init="real")
    assert "\n" not in str(error.value)


def on_real(data, dtype=torch.float32, **settings):
    how = RealTraining(**{"images": 8, "batch": 4, "lr": 0.05, "strategy": "color_crop", "cutmix": 0.5,
                          "warm_epochs": 0, **settings})  # fmt: skip
    labels, real = torch.as_tensor(data.train.labels), DeviceImages(normalised(data).to(dtype))
    found = TrainedOnReal(Fresh(network().float().requires_grad_(True), 0), 0, 3, real, labels, how)
    found.net.to(dtype)
    for name, buffer in found.state().items():
        if name.startswith("net-momentum"):
            buffer.data = buffer.to(dtype)
    return found


def test_a_network_trains_as_a_plain_loop_does(data):
    networks = on_real(data, torch.float64)
    networks.at(0)
    parameters = {name: p.detach().clone() for name, p in networks.net.named_parameters()}
    networks.train(0)
    networks.train(1)
    net, buffers = copy.deepcopy(networks.net), {name: torch.zeros_like(p) for name, p in parameters.items()}
    mixed = 0
    for number in range(4):
        # Two batches a training, of which each has its stream, continued by its first batch.
        rows, counters = networks._rows(number), (number - number % 2, number % 2)
        lanes = rng.lanes(rng.key(0, "on-real", *counters), 4)
        params = ops.idc_params("color_crop", lanes, (SIZE, SIZE), shared_op=True)
        images = ops.augment_passes(normalised(data)[rows], params)
        labels = torch.as_tensor(data.train.labels)[rows]
        targets = F.one_hot(labels, C).double()
        mix = ops.cutmix(rng.key(0, "on-real-cutmix", *counters), 4, (SIZE, SIZE), 0.5)
        if mix is not None:
            images = mix.paste(images)
            targets, mixed = mix.kept * targets + (1 - mix.kept) * targets[mix.order], mixed + 1
        leaves = {name: p.clone().requires_grad_() for name, p in parameters.items()}
        loss = -(targets * torch.func.functional_call(net, leaves, images).log_softmax(1)).sum(1).mean()
        for name, gradient in zip(leaves, torch.autograd.grad(loss, [*leaves.values()]), strict=True):
            buffers[name] = 0.9 * buffers[name] + gradient + 5e-4 * parameters[name]
            parameters[name] = parameters[name] - 0.05 * buffers[name]
    assert 0 < mixed < 4
    for name, parameter in networks.net.named_parameters():
        torch.testing.assert_close(parameter.detach(), parameters[name], rtol=1e-10, atol=1e-12)
        torch.testing.assert_close(networks.state()[f"net-momentum.{name}"], buffers[name], rtol=1e-10, atol=1e-12)


def test_batches_are_the_real_images_again_and_again(data):
    networks = on_real(data, batch=7)
    stream = torch.cat([networks._rows(number) for number in range(13)])
    for order in stream[:90].split(C * PER_CLASS):
        assert sorted(order.tolist()) == [*range(C * PER_CLASS)]
    assert not torch.equal(stream[:30], stream[30:60])
    assert torch.equal(networks._rows(4), stream[28:35])


def test_a_network_is_warmed_and_the_next_begins_without_momentum(data, monkeypatch):
    warmed, cold = on_real(data, warm_epochs=2), on_real(data)
    assert warmed._warm_batches == 15
    seen = []
    monkeypatch.setattr(real_networks, "train_epoch", lambda *_, order, **__: seen.append(order))
    for number in range(4):
        warmed.at(number)
        if (number + 1) % 3:
            warmed.train(number)
    assert [len(order) for order in seen] == [60, 8, 8, 60, 8]
    assert torch.equal(torch.cat(seen), torch.cat([warmed._rows(number) for number in range(36)]))
    monkeypatch.undo()
    cold.at(0)
    cold.train(0)
    first = [p.detach().clone() for p in cold.at(3).parameters()]
    assert all(not buffer.any() for name, buffer in cold.state().items() if name.startswith("net-momentum"))
    assert all(torch.equal(a, b) for a, b in zip(first, on_real(data).at(3).parameters(), strict=True))


def test_a_step_matches_on_a_network_that_was_warmed_before_it(data):
    method, apart = idc(data, warm_epochs=2), idc(data, warm_epochs=2)
    begun = [p.detach().clone() for p in apart._networks.untrained(0).parameters()]
    warmed = [*apart._networks.at(0).parameters()]  # outside of a step
    method.match(0)
    for found, wanted, before in zip(method._networks.net.parameters(), warmed, begun, strict=True):
        assert torch.equal(found, wanted)
        assert not torch.equal(found, before)
    assert method.step(1).isfinite()


def peak_of_tensors(call):
    """Bytes of the tensors that a call has at once, at most: what it allocates and frees, added up."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profiled:
        call()
    events = [event for event in profiled.profiler.kineto_results.events() if event.name() == "[memory]"]
    return int(np.cumsum([event.nbytes() for event in sorted(events, key=lambda event: event.start_ns())]).max())


def test_groups_take_no_memory(monkeypatch):
    """Gradients of as many segments as fit into what is set aside are held at a time."""
    images = np.random.default_rng(0).integers(0, 256, (20, 3, SIZE, SIZE), dtype=np.uint8)

    def peak(groups):
        split = Split(images, np.zeros(20, np.int64), np.arange(20) % groups)
        names = tuple(map(str, range(groups)))
        data = Dataset("made", split, split, ("a",), names, (0.4,) * 3, (0.25,) * 3, {})
        method = idc(data, debias="fairdd", batch_real=20, width=32)
        method.match(0)
        return peak_of_tensors(lambda: method.match(1))

    a_segment = 4 * 9 * 32 * (3 + 32)
    with monkeypatch.context() as patch:
        patch.setitem(dc._GRADIENT_BYTES, "cpu", a_segment)
        one = peak(1)
        assert peak(2) <= 1.05 * one
        assert peak(10) <= 1.05 * one
    assert peak(10) > 1.3 * one, "all at once"
