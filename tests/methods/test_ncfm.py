"""NCFM: characteristic functions beside experts, classes that take turns with one optimiser, a rate that falls."""

import copy
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import fastdd
from fastdd import ops, session
from fastdd.bench.oracles import ncfm as oracle
from fastdd.core import rng
from fastdd.data import Dataset, Split
from fastdd.data.initial import first_images, random_set
from fastdd.debias import Batch
from fastdd.experts import Experts, describe_experts
from fastdd.methods import Context, configure
from fastdd.methods.ncfm import Ncfm
from fastdd.methods.parts.expert_networks import Between
from fastdd.methods.parts.turns import Plateau, Turns

C, G, PER_CLASS, SIZE, IPC = 3, 2, 10, 8, 2
CPU = torch.device("cpu")
NETWORK = {"arch": "ConvNetASwish", "width": 4, "depth": 2}


@pytest.fixture(scope="module")
def data():
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (C * PER_CLASS, 3, SIZE, SIZE), dtype=np.uint8)
    groups = (np.arange(C * PER_CLASS) % 3 == 0).astype(np.int64)
    split = Split(images, np.arange(C).repeat(PER_CLASS), groups)
    return Dataset("made", split, split, ("a", "b", "c"), ("x", "y"), (0.4,) * 3, (0.25, 0.3, 0.2), {})


def experts_of(data, number=3, epochs=2):
    manifest = {**describe_experts({**NETWORK, "debias": "none"}, data), "experts": [], "dataset_digest": None}
    size = sum(math.prod(parameter["shape"]) for parameter in manifest["parameters"])
    values = 0.2 * rng.normal(rng.key(0, "experts"), number * (epochs + 1) * size).view(number, epochs + 1, size)
    return Experts(values, manifest)


def settings_of(**settings):
    few = {"iterations": 2, "batch_real": 6, "frequencies": 20, "ipc": IPC}
    return configure(**{"dataset": "made", "method": "ncfm", **few, **NETWORK, **settings})


def ncfm(data, experts=None, weights=None, **settings):
    config = settings_of(**settings)
    factor = config.factor if config.init == "mix" else 1
    images = first_images(data, config.ipc, 0, "real" if factor == 1 else "mix", factor=factor)
    return Ncfm(config, Context(data, CPU, images, weights, experts or experts_of(data)))


@pytest.mark.parametrize(("kind", "momentum", "decay"), [("adamw", 0.9, 0.05), ("adamw", 0.5, 0.0), ("sgd", 0.5, 0.0)])
@pytest.mark.parametrize(("classes", "rounds"), [(3, 2), (1, 2), (5, 1)])
def test_classes_in_turns_are_one_optimiser_stepped_class_by_class(classes, rounds, kind, momentum, decay):
    images = 2 * torch.rand(classes * IPC, 1, 2, 2, dtype=torch.float64) - 0.5
    goals = torch.rand(rounds, classes, IPC, 1, 2, 2, dtype=torch.float64)
    lr, patience, iterations = 0.1, 1, 9
    # New lows, too small ones, and worse: the rate falls twice.
    losses = [3.0, 2.9, 2.8999, 2.95, 4.0, 2.0, 2.5, 2.5, 2.5]

    def pull(images, iteration, number, label):
        """A gradient that depends on the class's own images alone."""
        return (images - goals[number, label]) ** 3 + 0.3 * math.sin(iteration + label)

    def gradient_of(images, iteration, number, label):
        gradient = torch.zeros_like(images)
        own = slice(label * IPC, (label + 1) * IPC)
        gradient[own] = pull(images[own], iteration, number, label)
        return gradient

    def optimizer(parameters):
        if kind == "sgd":
            return torch.optim.SGD(parameters, lr=lr, momentum=momentum)
        return torch.optim.AdamW(parameters, lr=lr, betas=(momentum, 0.999), weight_decay=decay)

    how = {"iterations": iterations, "rounds": rounds, "num_classes": classes, "patience": patience}
    expected = oracle.optimise_in_turn(images, gradient_of, losses.__getitem__, optimizer=optimizer, **how)

    moved, plateau = images.clone(), Plateau(lr, patience)
    turns = Turns(moved, torch.zeros_like(moved), classes, kind, momentum, decay, plateau.lr)
    done, rates = 0, []
    for iteration in range(iterations):
        moved.clamp_(0, 1)
        for number in range(rounds):
            turns.wait(done)
            parts = enumerate(moved.chunk(classes))
            turns.step(done, torch.cat([pull(part, iteration, number, label) for label, part in parts]))
            done += classes
        plateau.see(torch.tensor(losses[iteration], dtype=torch.float64))
        rates.append(plateau.lr.item())
    assert rates == [0.1, 0.1, 0.1, 0.05, 0.05, 0.05, 0.05, 0.025, 0.025]
    torch.testing.assert_close(moved, expected, rtol=1e-10, atol=1e-10)


def test_the_rate_is_that_of_reduce_on_plateau():
    generator = torch.Generator().manual_seed(0)
    losses = (5 / torch.arange(1.0, 401) ** 0.3 + 0.2 * torch.rand(400, generator=generator)).tolist()
    sgd = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1e-6)
    schedule = torch.optim.lr_scheduler.ReduceLROnPlateau(sgd, factor=0.5, patience=7)
    plateau = Plateau(1e-6, 7)
    for loss in losses:
        schedule.step(loss)
        plateau.see(torch.tensor(loss, dtype=torch.float64))
        assert plateau.lr.item() == sgd.param_groups[0]["lr"]
    # Down to where a halving would be too small to be one.
    assert 1e-8 < plateau.lr.item() < 1e-7


def test_networks_lie_between_an_experts_first_and_last_parameters(data):
    experts = experts_of(data)
    between = Between(ncfm(data)._networks.net, experts, seed=5)

    def parameters(net):
        return torch.cat([p.flatten() for p in net.parameters()]).clone()

    chosen, shares = set(), []
    for number in range(60):
        theta, last = parameters(between.at(number)), parameters(between.last(number))
        expert = next(k for k in range(3) if torch.equal(last, experts.values[k, -1]))
        first = experts.values[expert, 0]
        share = ((theta - last) @ (first - last) / (first - last).square().sum()).item()
        assert (theta - (share * first + (1 - share) * last)).abs().max() < 1e-6
        chosen.add(expert)
        shares.append(share)
    assert chosen == {0, 1, 2}
    assert 0 <= min(shares) < 0.1 < 0.9 < max(shares) <= 1
    assert torch.equal(parameters(between.at(3)), parameters(between.at(3)))


@pytest.mark.parametrize("calibration", [0.0, 0.7])
def test_iterations_are_the_published_loop(data, calibration):
    """Class by class, with the same networks and draws: one SGD, 300 times the published distance, then calibration."""
    settings = {"optimizer": "sgd", "weight_decay": 0.0, "momentum": 0.5, "lr_img": 2e-3, "patience": 0}
    config = settings_of(calibration=calibration, **settings)
    method = ncfm(data, calibration=calibration, **settings)
    mean, std = (torch.tensor(values).double().view(-1, 1, 1) for values in (data.mean, data.std))
    real = torch.from_numpy(data.train.images).double() / 255
    start, iterations = method.images.detach().double().clone(), 3
    nets = [
        [copy.deepcopy(net(number)).double() for net in (method._networks.at, method._networks.last)]
        for number in range(iterations)
    ]
    losses = dict.fromkeys(range(iterations), 0.0)

    def decoded(images):
        half = SIZE // 2
        parts = [images[:, :, i : i + half, j : j + half] for i in (0, half) for j in (0, half)]
        return F.interpolate(torch.cat(parts), size=(SIZE, SIZE), mode="bilinear")

    def augmented(images, stream, number, label):
        keys = rng.lanes(rng.key(config.seed, stream, number), C)
        return oracle.in_turn(
            (images - mean) / std, ops.idc_params(config.dsa_strategy, keys, (SIZE, SIZE))[label].double()
        )

    def features(net, images):
        return F.normalize(net.embed(images), dim=1)

    def gradient_of(images, number, turn, label):
        leaf = images.clone().requires_grad_()
        own = decoded(leaf[label * IPC : (label + 1) * IPC])
        between, last = nets[number]
        if turn == 0:
            batch = method._draws.batch(rng.key(config.seed, "batch", number), between)
            rows = batch.rows[batch.classes == label]
            waves = [
                torch.exp(
                    1j
                    * features(between, augmented(x, "dsa", number, label))
                    @ method.frequencies(method.keys(number), range(C))[label].double().T.to(torch.complex128)
                ).mean(0)
                for x in (real[rows], own)
            ]
            loss = 300 * oracle.distance(*waves, 0.5, 0.5)
        else:
            seen = augmented(own, "calibration", number, label)
            loss = calibration * F.cross_entropy(last(seen), torch.full((len(seen),), label))
        losses[number] += loss.item()
        return torch.autograd.grad(loss, leaf)[0]

    def optimizer(parameters):
        return torch.optim.SGD(parameters, lr=config.lr_img, momentum=0.5)

    rounds = 2 if calibration else 1
    how = {"iterations": iterations, "rounds": rounds, "num_classes": C, "patience": config.patience}
    expected = oracle.optimise_in_turn(start, gradient_of, losses.__getitem__, optimizer=optimizer, **how)
    got = [method.step(number).item() for number in range(iterations)]
    assert got == pytest.approx([losses[number] for number in range(iterations)], rel=1e-5)
    way = (expected - start).norm()
    assert way > 0.1
    assert (method.images.detach() - expected).norm() <= 1e-4 * way


def test_fairdd_is_the_sum_over_groups(data):
    method = ncfm(data, debias="fairdd", batch_real=8)
    plain = ncfm(data, batch_real=8)
    net = method._networks.at(0)
    batch = method._draws.batch(rng.key(0, "batch", 0), net)
    images, params = method.images.detach(), method._augmentation(rng.lanes(rng.key(0, "dsa", 0), C))
    method._at_hand = plain._at_hand = method.keys(0)
    loss, gradient = method._loss_and_gradient(net, method._config.mode.segments(batch), images, params)
    total, pulls = torch.zeros(()), torch.zeros_like(gradient)
    for group in range(G):
        chosen = batch.groups == group
        some = Batch(batch.rows[chosen], batch.classes[chosen], batch.groups[chosen], C, G)
        one, pull = plain._loss_and_gradient(net, plain._config.mode.segments(some), images, params)
        total, pulls = total + one, pulls + pull
    torch.testing.assert_close(loss, total, rtol=1e-5, atol=0)
    assert (gradient - pulls).norm() <= 1e-5 * gradient.norm()


def test_pixels_are_put_back_before_every_iteration(data):
    method = ncfm(data, lr_img=0.5)
    with torch.no_grad():
        method.images.add_(2)
    seen = []
    right = method._loss_and_gradient

    def recorded(net, segments, images, params):
        seen.append(images[:IPC].clone())
        return right(net, segments, images, params)

    method._loss_and_gradient = recorded
    method.step(0), method.step(1)
    # The first class has the first turn.
    for images in seen:
        assert images.min() >= 0
        assert images.max() <= 1


def test_a_run_resumed_after_the_rate_has_fallen_has_the_same_bits(data, tmp_path):
    config, experts = settings_of(iterations=8, patience=0, lr_img=0.3), experts_of(data)

    class Stop(session.Callback):
        def wants_checkpoint(self, run):
            if run.step == 6:
                run.stop.set()
            return False

    whole = session.run(config, data, experts=experts)
    with pytest.raises(KeyboardInterrupt):
        session.run(config, data, out=tmp_path, experts=experts, callbacks=[Stop()])
    state = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    rates = [value for name, value in _named(state) if name == "lr"]
    assert len(rates) == 1
    assert rates[0] < 0.3
    assert torch.equal(session.run(config, data, out=tmp_path, resume=True, experts=experts).images, whole.images)


def _named(state):
    for name, value in state.items():
        if isinstance(value, dict):
            yield from _named(value)
        else:
            yield name, value


def test_its_debias_mode_is_not_that_of_its_experts(data):
    experts = experts_of(data)
    few = {"iterations": 1, "ipc": 1, "frequencies": 5, "batch_real": 4}
    made = fastdd.distill(data, method="ncfm", debias="fairdd", experts=experts, **few)
    assert made.metadata["debias"] == "fairdd"
    made = fastdd.Distillation(data, method="ncfm", experts=experts, ipc=1)
    assert (made.settings.debias, made.settings.arch, made.settings.width) == ("none", "ConvNetASwish", 4)


def test_what_does_not_fit_is_refused(data):
    with pytest.raises(
        ValueError, match=r"method ncfm needs the trajectories of experts: give experts \(fastdd experts trains them\)"
    ):
        session.run(settings_of(), data)
    experts = experts_of(data)
    with pytest.raises(ValueError, match="whitened images"):
        ncfm(data, Experts(experts.values, experts.manifest, object()))
    with pytest.raises(ValueError, match="no epochs"):
        ncfm(data, Experts(experts.values[:, :1], experts.manifest))
    with pytest.raises(ValueError, match="the experts have"):
        ncfm(data, experts, width=8)
    images = random_set(data, IPC).images
    with pytest.raises(ValueError, match="share one optimiser"):
        Ncfm(settings_of(), Context(data, CPU, images, None, experts, range(1)))
    with pytest.raises(ValueError, match=r"weight_decay 0.1 is of optimizer adamw; with sgd it must be 0"):
        settings_of(optimizer="sgd", weight_decay=0.1)
    with pytest.raises(ValueError, match="amplitude and phase are both 0"):
        settings_of(amplitude=0, phase=0)
    with pytest.raises(ValueError, match=r"factor must be 1 to 8, .* not 9"):
        ncfm(data, experts, factor=9, init="real")


def test_published_settings():
    rows = {
        ("cifar10", 1): ("adamw", 1e-3, 0.9),
        ("cifar100", 1): ("adamw", 1e-3, 0.9),
        ("cifar100", 10): ("sgd", 1e-2, 0.5),
        ("cifar100", 50): ("adamw", 1e-3, 0.9),
        ("tiny-imagenet", 50): ("adamw", 1e-3, 0.9),
    }
    for (dataset, ipc), expected in rows.items():
        config = configure(dataset=dataset, method="ncfm", ipc=ipc)
        assert (config.optimizer, config.lr_img, config.momentum) == expected
        assert (config.iterations, config.batch_real, config.frequencies, config.factor) == (20000, 1024, 4096, 2)
        assert (config.patience, config.calibration, config.init) == (500, 1, "mix")
