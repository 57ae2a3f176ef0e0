"""Recipes' losses, tables and gradients against loops over single images, in float64."""

import dataclasses
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from fastdd import models
from fastdd.core import rng
from fastdd.data import DeviceImages
from fastdd.debias.density.embedding import gsc_loss
from fastdd.training import RECIPES, TrainingImages, TrainSettings, constants, recipe, start
from fastdd.training.failure import LossTables, generalised_cross_entropy
from fastdd.training.selecmix import partners
from fastdd.training.trainer import Trainer

CLASSES, GROUPS, N = 3, 2, 24
KEY = (0, "test")


def network(name: str) -> torch.nn.Module:
    key = rng.key(0, "start-of", len(name), *map(ord, name))
    return models.initialised(lambda: models.build("ConvNet", 3, CLASSES, (8, 8), width=4, depth=1), key).double()


def images(n: int = N) -> TrainingImages:
    generator = np.random.default_rng(0)
    pixels = torch.from_numpy(generator.normal(size=(n, 3, 8, 8)))
    labels = torch.arange(n) % CLASSES
    groups = torch.tensor([0 if generator.random() < 0.7 else 1 for _ in range(n)])
    return TrainingImages(DeviceImages(pixels), labels, CLASSES, groups, GROUPS)


def begun(name: str, **values) -> tuple[TrainingImages, object]:
    data = images()
    return data, start(name, data, network("net"), network, KEY, values)


def gradients(loss: torch.Tensor, *nets: torch.nn.Module) -> list[torch.Tensor | None]:
    parameters = [p for net in nets for p in net.parameters()]
    return torch.autograd.grad(loss, parameters, allow_unused=True)


def assert_same(ours, theirs) -> None:
    for a, b in zip(ours, theirs, strict=True):
        assert (a is None) == (b is None)
        if a is not None:
            torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-13)


def ce(logits: torch.Tensor, label: int) -> torch.Tensor:
    return logits.logsumexp(0) - logits[label]


def test_a_batch_of_plain_training_is_the_mean_over_its_images():
    data, ours = begun("erm")
    rows = torch.tensor([3, 0, 7, 11])
    x = data.images.pixels[rows]
    loss = ours.loss(rows, x, KEY)
    literal = sum(ce(ours.net(x[i : i + 1])[0], int(data.labels[r])) for i, r in enumerate(rows)) / len(rows)
    torch.testing.assert_close(loss, literal, rtol=1e-12, atol=0)
    assert_same(gradients(loss, ours.net), gradients(literal, ours.net))


def test_loss_weighting_makes_every_group_of_a_class_count_alike():
    data, ours = begun("lw")
    rows = torch.arange(N)
    counts = {
        (c, g): sum(1 for y, b in zip(data.labels, data.groups, strict=True) if (y, b) == (c, g))
        for c in range(3)
        for g in range(2)
    }
    expected = [
        sum(counts[int(y), g] for g in range(2))
        / (sum(counts[int(y), g] > 0 for g in range(2)) * counts[int(y), int(b)])
        for y, b in zip(data.labels, data.groups, strict=True)
    ]
    np.testing.assert_allclose(ours._weights, expected, rtol=1e-6)
    x = data.images.pixels
    literal = (
        sum(float(w) * ce(ours.net(x[i : i + 1])[0], int(data.labels[i])) for i, w in enumerate(ours._weights)) / N
    )
    assert_same(gradients(ours.loss(rows, x, KEY), ours.net), gradients(literal, ours.net))


def test_resampling_draws_every_cell_alike():
    labels = torch.tensor([0] * 90 + [0] * 10 + [1] * 50)
    groups = torch.tensor([0] * 90 + [1] * 10 + [0] * 50)
    data = TrainingImages(DeviceImages(torch.zeros(150, 3, 8, 8)), labels, 2, groups, 2)
    ours = start("resample", data, network("net"), network, KEY)
    drawn = torch.cat([ours.order((0, "epoch", number)) for number in range(60)])
    shares = torch.bincount(data.cells[drawn], minlength=4)[[0, 1, 2]].double() / len(drawn)
    # 9,000 draws, a third each: four standard deviations.
    assert (shares - 1 / 3).abs().max() < 4 * math.sqrt(2 / 9 / len(drawn))
    assert torch.equal(ours.order((0, "epoch", 0)), ours.order((0, "epoch", 0)))


def test_group_dro_moves_weight_to_the_worst_cell_and_follows_its_gradient():
    data, ours = begun("groupdro", eta=0.5)
    shares = [1 / 6] * 6
    for step in range(3):
        rows = torch.arange(step * 5, step * 5 + 8)
        x = data.images.pixels[rows]
        loss = ours.loss(rows, x, KEY)
        cells = {}
        for i, r in enumerate(rows.tolist()):
            cells.setdefault(int(data.labels[r]) * 2 + int(data.groups[r]), []).append(
                ce(ours.net(x[i : i + 1])[0], int(data.labels[r]))
            )
        means = [
            sum(cells[c]) / len(cells[c]) if c in cells else torch.zeros((), dtype=torch.float64) for c in range(6)
        ]
        shares = [q * math.exp(0.5 * m.item()) for q, m in zip(shares, means, strict=True)]
        shares = [q / sum(shares) for q in shares]
        literal = sum(q * m for q, m in zip(shares, means, strict=True))
        # The shares are kept in float32.
        torch.testing.assert_close(loss, literal, rtol=1e-6, atol=0)
        np.testing.assert_allclose(ours.tables()["shares"], shares, rtol=1e-6)


class Lff:
    """Learning from failure, an image at a time."""

    def __init__(self, data: TrainingImages, biased: torch.nn.Module, net: torch.nn.Module):
        self.data, self.biased, self.net = data, biased, net
        self.m_b: dict[int, float] = {}
        self.m_d: dict[int, float] = {}

    def weights(self, rows: list[int], l_b: list[float], l_d: list[float]) -> list[float]:
        for row, b, d in zip(rows, l_b, l_d, strict=True):
            self.m_b[row] = 0.7 * self.m_b[row] + 0.3 * b if row in self.m_b else b
            self.m_d[row] = 0.7 * self.m_d[row] + 0.3 * d if row in self.m_d else d
        weights = []
        for row in rows:
            label = self.data.labels[row]
            b = self.m_b[row] / max(v for r, v in self.m_b.items() if self.data.labels[r] == label)
            d = self.m_d[row] / max(v for r, v in self.m_d.items() if self.data.labels[r] == label)
            weights.append(b / (b + d + 1e-8))
        return weights

    def loss(self, rows: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        labels = [int(self.data.labels[r]) for r in rows]
        of_b = [self.biased(x[i : i + 1])[0] for i in range(len(rows))]
        of_d = [self.net(x[i : i + 1])[0] for i in range(len(rows))]
        l_b = [ce(o, y) for o, y in zip(of_b, labels, strict=True)]
        l_d = [ce(o, y) for o, y in zip(of_d, labels, strict=True)]
        w = self.weights(rows.tolist(), [v.item() for v in l_b], [v.item() for v in l_d])
        gce = [0.7 * o.softmax(0)[y].item() ** 0.7 * v for o, y, v in zip(of_b, labels, l_b, strict=True)]
        return sum(gce) / len(rows) + sum(wi * v for wi, v in zip(w, l_d, strict=True)) / len(rows)


def in_float64(tables: LossTables) -> None:
    tables.biased, tables.debiased = tables.biased.double(), tables.debiased.double()


def test_learning_from_failure_is_the_loop_over_images():
    data, ours = begun("lff")
    in_float64(ours._tables)
    literal = Lff(data, ours.modules["biased"], ours.net)
    for step in range(4):  # rows come again, so that the tables' averages are seen
        rows = torch.arange(step * 6, step * 6 + 10) % N
        x = data.images.pixels[rows]
        loss, expected = ours.loss(rows, x, KEY), literal.loss(rows, x)
        torch.testing.assert_close(loss, expected, rtol=1e-10, atol=0)
        both = ours.net, ours.modules["biased"]
        assert_same(gradients(loss, *both), gradients(expected, *both))


def test_disentangled_features_are_the_loop_over_images_before_and_after_swapping():
    data, ours = begun("dfa", swap_from=1, lambda_dis=3.0, lambda_swap_bias=2.0, lambda_swap=0.5)
    for module in ours.modules.values():
        module.double()
    in_float64(ours._tables)
    bias, head_i, head_b = (ours.modules[name] for name in ("bias", "intrinsic_head", "bias_head"))
    tables = Lff(data, bias, ours.net)
    rows = torch.arange(8)
    x, labels = data.images.pixels[rows], [int(y) for y in data.labels[rows]]
    for step in range(2):
        key = (0, "test", step)
        loss = ours.loss(rows, x, key)
        z_i = [ours.net.embed(x[i : i + 1])[0] for i in range(8)]
        z_b = [bias.embed(x[i : i + 1])[0] for i in range(8)]

        def terms(order, given, z_i=z_i, z_b=z_b):
            conflict, biased = [], []
            for i, j in enumerate(order):
                conflict.append(ce(head_i(torch.cat([z_i[i], z_b[j].detach()])), labels[i]))
                out = head_b(torch.cat([z_i[i].detach(), z_b[j]]))
                biased.append((0.7 * float(out.softmax(0)[given[i]]) ** 0.7) * ce(out, given[i]))
            return conflict, biased

        conflict, _ = terms(range(8), labels)
        plain = [float(ce(head_b(torch.cat([z_i[i], z_b[i]])), labels[i])) for i in range(8)]
        w = tables.weights(rows.tolist(), plain, [v.item() for v in conflict])
        conflict, biased = terms(range(8), labels)
        expected = sum(a * b for a, b in zip(w, conflict, strict=True)) / 8 + 3 * sum(biased) / 8
        if step == 1:
            order = rng.permutation(rng.key(*key, "swap"), 8).tolist()
            conflict, biased = terms(order, [labels[j] for j in order])
            expected = expected + 0.5 * (sum(a * b for a, b in zip(w, conflict, strict=True)) / 8 + 2 * sum(biased) / 8)
        torch.testing.assert_close(loss, expected, rtol=1e-9, atol=0)
        nets = ours.net, bias, head_i, head_b
        assert_same(gradients(loss, *nets), gradients(expected, *nets))
    assert torch.equal(ours.predictor()(x), head_i(torch.cat([ours.net.embed(x), bias.embed(x)], 1)))


@pytest.mark.parametrize("same", [True, False])
def test_partners_contradict_the_bias(same):
    z = F.normalize(torch.from_numpy(np.random.default_rng(1).normal(size=(20, 5))), dim=1)
    z[:, 0] -= 2  # all similarities within a label negative for some: masked by infinity, not by 0
    labels = torch.arange(20) % 4
    similarities = z @ z.t()
    for i, j in enumerate(partners(similarities, labels, same).tolist()):
        if same:
            among = [k for k in range(20) if labels[k] == labels[i] and k != i]
            assert j in among
            assert similarities[i, j] == min(similarities[i, k] for k in among)
        else:
            among = [k for k in range(20) if labels[k] != labels[i]]
            assert j in among
            assert similarities[i, j] == max(similarities[i, k] for k in among)


def test_an_image_without_partner_has_itself():
    assert partners(torch.eye(3), torch.tensor([0, 1, 1]), True).tolist() == [0, 2, 1]
    assert partners(torch.eye(2), torch.tensor([1, 1]), False).tolist() == [0, 1]


def test_mixed_images_have_their_partners_labels():
    data = images()
    data = TrainingImages(DeviceImages(data.images.pixels.float()), data.labels, CLASSES)
    ours = start("selecmix", data, network("net").float(), lambda name: network(name).float(), KEY, {"pool": 12})
    encoder = ours._encoder
    order, key = ours.order((0, "epoch", 0)), (0, "epoch", 0, 0)
    assert torch.equal(order.sort().values, torch.arange(N))
    with torch.no_grad():
        z = torch.cat([encoder(data.images.pixels[rows]) for rows in order[:12].split(6)])
    ours.restore(ours.state())
    same = bool(rng.bits(rng.key(*key, "coin"), 1).item() & 1)
    expected = order[:12][partners(z @ z.t(), data.labels[order[:12]], same)][:6]
    rows = order[:6]
    before = [p.clone() for p in encoder.parameters()]
    encoder_loss = gsc_loss(encoder(data.images.pixels[rows]), data.labels[rows])
    step = torch.autograd.grad(encoder_loss, list(encoder.parameters()))
    mixed, labels = ours._mixed(rows, data.images.pixels[rows], key)
    assert torch.equal(labels, data.labels[expected])
    share = rng.uniform(rng.key(*key, "shares"), 6) / 2
    assert share.max() <= 0.5
    for i in range(6):
        theirs = (1 - share[i]) * data.images.pixels[expected[i]]
        torch.testing.assert_close(mixed[i], share[i] * data.images.pixels[rows[i]] + theirs, rtol=1e-6, atol=1e-6)
    # Adam's first step is of the size of its rate, against the gradient.
    for old, new, gradient in zip(before, encoder.parameters(), step, strict=True):
        large = gradient.abs() > 1e-4
        torch.testing.assert_close((old - new)[large], 0.01 * gradient.sign()[large], rtol=1e-2, atol=1e-6)


def test_generalised_cross_entropy_weighs_the_gradient_by_p_to_the_q():
    logits = torch.randn(5, 4, dtype=torch.float64, requires_grad=True, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([0, 1, 2, 3, 0])
    ours = torch.autograd.grad(generalised_cross_entropy(logits, labels, 0.7).sum(), logits)[0]
    p = logits.softmax(1)[torch.arange(5), labels]
    published = torch.autograd.grad(((1 - p**0.7) / 0.7).sum(), logits)[0]
    torch.testing.assert_close(ours, 0.7 * published, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_says_what_it_is_and_refuses_what_it_can_not_use(name):
    kind = recipe(name)
    assert (kind.name, bool(kind.about), bool(kind.source)) == (name, True, True)
    assert all(field.description for field in kind.Settings.model_fields.values())
    data = images()
    soft = TrainingImages(data.images, torch.full((N, CLASSES), 1 / CLASSES), CLASSES, data.groups, GROUPS)
    if kind.needs_classes:
        with pytest.raises(ValueError, match=f"training {name} is of classes"):
            start(name, soft, network("net"), network, KEY)
    if kind.needs_groups:
        with pytest.raises(ValueError, match=f"training {name} looks at groups"):
            start(name, TrainingImages(data.images, data.labels, CLASSES), network("net"), network, KEY)


def test_constants_are_checked_by_name_and_value():
    with pytest.raises(ValueError, match="training lff has no constant 'p'; it has: q, decay"):
        constants("lff", {"p": 1})
    with pytest.raises(ValueError, match="q must be at most 1, not 2"):
        constants("lff", {"q": 2})
    with pytest.raises(ValueError, match="unknown training 'adam'; one of: erm, lw"):
        recipe("adam")


def dfa_in_float32(**values):
    data = dataclasses.replace(images(), images=DeviceImages(images().images.pixels.float()))
    return start("dfa", data, network("net").float(), lambda name: network(name).float(), KEY, values)


def test_the_rate_of_dfa_falls_by_half_from_the_step_at_which_features_are_swapped():
    ours = dfa_in_float32(swap_from=3, halve_every=2)
    rates = []
    for step in range(9):
        rates.append(ours.rate())
        ours.loss(torch.tensor([0, 1]), ours.data.images.pixels[:2], (*KEY, step))
    assert rates == [1, 1, 1, 1, 1, 0.5, 0.5, 0.25, 0.25]
    assert begun("lff")[1].rate() == 1


def test_steps_have_the_recipes_rate():
    ours = dfa_in_float32(swap_from=2, halve_every=1)
    config = TrainSettings.configure(dataset="d", arch="ConvNet", epochs=1, batch_train=6, training="dfa")
    trainer = Trainer(ours, config, 0.01, KEY)
    seen, step = [], trainer._optimiser.step
    trainer._optimiser.step = lambda: (seen.append(trainer._optimiser.param_groups[0]["lr"]), step())
    trainer.epoch(0)
    assert seen == [0.01, 0.01, 0.01, 0.005]


@pytest.mark.parametrize(
    ("dataset", "level", "settings", "lr", "pretrain_lr"),
    [
        # From Fake to Real, Table 2.
        ("celeba-hq", 0.95, {"use": "ffr", "training": "groupdro"}, 1e-3, 1e-5),
        ("celeba-hq", 0.99, {"use": "usb", "training": "resample"}, 1e-7, None),
        ("utkface", 0.999, {}, 1e-3, None),
        ("utkface", 0.97, {"use": "ffr", "training": "dfr"}, 1e-6, 1e-4),
        ("spuco-animals", 0.95, {"use": "asb"}, 1e-6, None),
        ("spuco-animals", 0.999, {"training": "resample"}, 1e-4, None),
        # It has no other levels, and no recipe of this name.
        ("utkface", 0.9, {}, 1e-4, None),
        ("utkface", 0.99, {"training": "lff"}, 1e-4, None),
        ("cmnist-lff", 0.95, {"training": "dfa"}, 0.01, None),
        ("cmnist-lff", 0.95, {"training": "dfa", "lr": 0.5}, 0.5, None),
        ("corrupted-cifar10", 0.995, {"training": "dfa"}, 5e-4, None),
    ],
)
def test_learning_rates_are_those_of_the_papers(dataset, level, settings, lr, pretrain_lr):
    found = TrainSettings.configure(dataset=dataset, bias_ratio=level, **settings)
    assert (found.lr, found.pretrain_lr) == (lr, pretrain_lr)


def test_constants_that_are_given_stand_beside_the_published():
    found = TrainSettings.configure(dataset="cmnist-lff", training="dfa", constants={"swap_from": 5})
    assert found.constants == {"lambda_dis": 10, "lambda_swap_bias": 10, "swap_from": 5}
    published = {
        level: TrainSettings.configure(dataset="corrupted-cifar10", training="dfa", bias_ratio=level).constants
        for level in (0.95, 0.98, 0.99)
    }
    five = {"lambda_dis": 5, "lambda_swap_bias": 5}
    assert published == {0.95: {}, 0.98: five, 0.99: five}
    # 50,000 steps of 256.
    assert round(TrainSettings.configure(dataset="cmnist-lff", training="dfa").epochs * 60_000 / 256, -3) == 50_000


class Waits(TorchDispatchMode):
    """Calls for which the host would wait for a GPU: a number that it reads, a size that depends on values."""

    kinds = ("_local_scalar_dense", "nonzero", "masked_select", "is_nonzero", "equal", "_unique2", "bincount")

    def __init__(self):
        super().__init__()
        self.found = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if function.overloadpacket.__name__ in self.kinds:
            self.found.append(str(function))
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("optimiser", ["adam", "sgd"])
@pytest.mark.parametrize("name", RECIPES)
def test_no_step_of_an_epoch_waits_for_the_device(name, optimiser):
    data = images()
    data = TrainingImages(
        DeviceImages(data.images.pixels.float()), data.labels, CLASSES, data.groups, GROUPS, "flip_crop"
    )
    values = {"swap_from": 1} if name == "dfa" else {"pool": 12} if "mix" in name else {}
    begun = start(name, data, network("net").float(), lambda other: network(other).float(), KEY, values)
    config = TrainSettings.configure(
        dataset="any", training=name, arch="ConvNet", epochs=1, batch_train=6, optimiser=optimiser
    )
    trainer = Trainer(begun, config, 1e-3, KEY)
    with Waits() as waits:
        loss = trainer.epoch(0)
        assert waits.found == []
        assert math.isfinite(loss.item())
    assert waits.found == ["aten._local_scalar_dense.default"]  # what is counted is seen


def test_several_batches_are_read_at_once_as_one_by_one():
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (N, 3, 8, 8), dtype=torch.uint8, generator=generator)
    data = TrainingImages(
        DeviceImages(pixels, torch.full((3,), 0.4), torch.full((3,), 0.3)),
        torch.arange(N) % CLASSES,
        CLASSES,
        dsa_strategy="color_crop_cutout_flip_scale_rotate",
    )
    rows = rng.permutation(rng.key(0, "rows"), N)[:20]
    parts = [data.read(some, (0, "epoch", 3, 5 + number)) for number, some in enumerate(rows.split(6))]
    assert torch.equal(data.read_batches(rows, 6, (0, "epoch", 3, 5)), torch.cat(parts))


def test_selecmix_trains_on_the_images_that_its_batches_would_be():
    data = images()
    data = TrainingImages(DeviceImages(data.images.pixels.float()), data.labels, CLASSES, dsa_strategy="flip_crop")
    ours = start("selecmix", data, network("net").float(), lambda other: network(other).float(), KEY, {"pool": 12})
    batches = ours.order((0, "epoch", 0)).split(6)
    times = torch.zeros(N, dtype=torch.int64)
    for number, rows in enumerate(batches):
        key = (0, "epoch", 0, number)
        x = ours.read(rows, key)
        assert torch.equal(x, data.read(rows, key))
        ours.loss(rows, x, key)
        if number % 2 == 0:
            for other in ours._rows[ours._partners].tolist():
                times[other] += 1
    assert torch.equal(ours.image_weights()["partner"].long(), times)
    assert times.sum() == N


def test_balanced_group_dro_draws_as_resampling_does():
    key = (0, "epoch", 3)
    order = begun("groupdro", balanced=True)[1].order(key)
    assert torch.equal(order, begun("resample")[1].order(key))
    assert begun("groupdro")[1].order(key) is None


def test_bias_conflicting_images_are_outside_the_largest_group_of_their_class():
    labels, groups = torch.tensor([0, 0, 0, 1, 1, 1, 2, 2]), torch.tensor([1, 1, 0, 0, 0, 1, 1, 0])
    pixels = DeviceImages(torch.zeros(8, 3, 8, 8))
    data = TrainingImages(pixels, labels, 3, groups, 2)
    assert data.conflicting.tolist() == [False, False, True, False, False, True, True, False]
    assert TrainingImages(pixels, labels, 3).conflicting is None


def test_weights_of_all_images_are_those_of_their_rows():
    tables = LossTables(torch.tensor([0, 0, 1, 1]), 2)
    tables.update(torch.arange(4), torch.tensor([1.0, 4.0, 2.0, 1.0]), torch.tensor([2.0, 1.0, 3.0, 3.0]))
    expected = [0.25 / 1.25, 1 / 1.5, 1 / 2, 0.5 / 1.5]
    torch.testing.assert_close(tables.weights(), torch.tensor(expected), rtol=1e-6, atol=0)
