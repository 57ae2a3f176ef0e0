"""Epochs and evaluation under the published names, against a literal re-implementation and the original code."""

import copy
import itertools
import re
import types
from argparse import Namespace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader

from fastdd import compat, models
from fastdd.compat import dc, fairdd, mtt
from fastdd.compat.dc.batches import batches
from fastdd.compat.mtt import training as mtt_training
from fastdd.core import rng

CLASSES, GROUPS, SIDE = 4, 3, 16
DSA = "color_crop_cutout_flip_scale_rotate"
DC_AUGMENT = {"crop": 4, "scale": 0.2, "rotate": 45, "noise": 0.001, "strategy": "crop_scale_rotate_noise"}
AUGMENTATIONS = {
    "dsa": {"dsa": True, "dsa_strategy": DSA},
    "dc": {"dsa": False, "dc_aug_param": DC_AUGMENT},
    "none": {"dsa": False, "dc_aug_param": None},
}


@pytest.fixture(autouse=True)
def published_draws():
    with compat.use_rng("legacy"):
        yield


def arguments(**given) -> Namespace:
    settings = {
        **{"device": "cpu", "dsa": False, "dsa_param": dc.ParamDiffAug(), "lr_net": 0.05, "batch_train": 16},
        **{"epoch_eval_train": 3, "num_classes": CLASSES, "num_groups": GROUPS, "dataset": "CIFAR10"},
    }
    return Namespace(**(settings | given))


def images(n: int, stream: str = "images") -> torch.Tensor:
    return rng.normal(rng.key(0, stream), n * 3 * SIDE * SIDE).view(n, 3, SIDE, SIDE)


def tensors(n: int = 40) -> tuple[torch.Tensor, torch.Tensor]:
    return images(n), torch.arange(n) % CLASSES


class Triples(torch.utils.data.Dataset):
    """Items as a script's own data set has them; counts how often it is asked."""

    def __init__(self, n: int = 30):
        self.images, self.labels = tensors(n)
        self.groups = (rng.uniform(rng.key(0, "groups"), n) * GROUPS).long()
        self.asked = [0]

    def __len__(self):
        return len(self.images)

    def __getitem__(self, i):
        self.asked[0] += 1
        return self.images[i], int(self.labels[i]), int(self.groups[i]), (i, 0)


class TensorDataset(torch.utils.data.Dataset):
    """A script's own copy of the published class."""

    def __init__(self, images, labels):
        self.images = images.detach().float()
        self.labels = labels.detach()

    def __getitem__(self, index):
        return self.images[index], self.labels[index]

    def __len__(self):
        return self.images.shape[0]


def network(name: str = "ConvNetASwish") -> nn.Module:
    # Without kinks, rounding stays rounding.
    return models.build(name, 3, CLASSES, (SIDE, SIDE), width=8, depth=2, key=3)


def sgd(net: nn.Module, rate: float = 0.05) -> torch.optim.SGD:
    return torch.optim.SGD(net.parameters(), lr=rate, momentum=0.9, weight_decay=5e-4)


def seed(value: int = 5) -> None:
    torch.manual_seed(value)
    np.random.seed(value)


def draws() -> tuple[float, float]:
    """What the global generators give next."""
    return torch.rand(()).item(), np.random.rand()


def literal_epoch(mode, loader, net, optimizer, criterion, args, aug, prepare=None):
    """The published epoch, batch by batch on the host."""
    loss_sum = right = count = 0
    net.train(mode == "train")
    for datum in loader:
        x, y = datum[0].float(), datum[1].long()
        if prepare is not None:
            x, y = prepare(x, y)
        if aug and args.dsa:
            x = dc.DiffAugment(x, args.dsa_strategy, param=args.dsa_param)
        elif aug:
            x = dc.augment(x, args.dc_aug_param, args.device)
        logits = net(x)
        loss = criterion(logits, y)
        right += (logits.detach().numpy().argmax(1) == y.numpy()).sum()
        loss_sum += loss.item() * len(y)
        count += len(y)
        if mode == "train":
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return loss_sum / count, right / count


def literal_evaluation(net, x, y, args, prepare=None):
    rate, found = args.lr_net, []
    optimizer = sgd(net, rate)
    loader = DataLoader(TensorDataset(x, y), batch_size=args.batch_train, shuffle=True)
    for ep in range(args.epoch_eval_train + 1):
        found.append(literal_epoch("train", loader, net, optimizer, nn.CrossEntropyLoss(), args, True, prepare))
        if ep == args.epoch_eval_train // 2 + 1:
            rate *= 0.1
            optimizer = sgd(net, rate)
    return found


def same_parameters(a: nn.Module, b: nn.Module, tolerance: float = 1e-5) -> None:
    for p, q in zip(a.parameters(), b.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=tolerance, atol=tolerance)


def trained(epoch, dataset, args, *, batch_size=16, **loading):
    """Three epochs from the same weights and seed: the network, the figures and what the generators give next."""
    net = network()
    seed()
    loader = DataLoader(dataset, batch_size=batch_size, **({"shuffle": True} | loading))
    optimizer = sgd(net)
    figures = [epoch("train", loader, net, optimizer, nn.CrossEntropyLoss(), args, True) for _ in range(3)]
    return net, figures, draws()


@pytest.mark.parametrize("augmentation", AUGMENTATIONS)
@pytest.mark.parametrize("kind", [dc.TensorDataset, TensorDataset, torch.utils.data.TensorDataset])
def test_training_is_the_literal_loop(kind, augmentation):
    args = arguments(**AUGMENTATIONS[augmentation])
    expected, figures, after = trained(literal_epoch, TensorDataset(*tensors()), args)
    net, ours, ours_after = trained(dc.epoch, kind(*tensors()), args)
    same_parameters(net, expected)
    np.testing.assert_allclose(ours, figures, rtol=1e-6)
    assert ours_after == after
    assert all(isinstance(figure, float) for row in ours for figure in row)


@pytest.mark.parametrize(
    "loading",
    [
        {"shuffle": False},
        {"shuffle": False, "sampler": torch.utils.data.SubsetRandomSampler(range(7, 29))},
        {"generator": torch.Generator()},
        {"drop_last": True, "generator": torch.Generator()},
    ],
)
@pytest.mark.parametrize("mode", ["legacy", "fast"])
def test_an_order_of_the_loaders_own_is_kept(loading, mode):
    args, found = arguments(**AUGMENTATIONS["none"]), []
    for epoch in (literal_epoch, dc.epoch):
        if "generator" in loading:
            loading["generator"].manual_seed(9)
        with compat.use_rng(mode):
            found.append(trained(epoch, TensorDataset(*tensors()), args, **loading)[1])
    np.testing.assert_allclose(*found, rtol=1e-6)


@pytest.mark.parametrize("mode", ["legacy", "fast"])
@pytest.mark.parametrize("order", ["random", "sequential", "part"])
def test_a_batch_sampler_of_the_scripts_own(order, mode):
    args, data, found = arguments(), TensorDataset(*tensors()), []
    for epoch in (literal_epoch, dc.epoch):
        sampler = {
            "random": torch.utils.data.RandomSampler(data, generator=torch.Generator().manual_seed(2)),
            "sequential": torch.utils.data.SequentialSampler(data),
            "part": torch.utils.data.SequentialSampler(range(21)),
        }[order]
        net = network()
        loader = DataLoader(data, batch_sampler=torch.utils.data.BatchSampler(sampler, 7, drop_last=False))
        with compat.use_rng(mode):
            found.append(epoch("train", loader, net, sgd(net), nn.CrossEntropyLoss(), args, False))
            found[-1] += figures_of(loader, net, epoch=epoch)
    np.testing.assert_allclose(*found, rtol=1e-6)


@pytest.mark.parametrize("drop_last", [False, True])
def test_the_last_batch(drop_last):
    args, found = arguments(**AUGMENTATIONS["none"]), []
    for epoch in (literal_epoch, dc.epoch):
        found.append(trained(epoch, TensorDataset(*tensors()), args, drop_last=drop_last)[1:])
    (figures, after), (ours, ours_after) = found
    np.testing.assert_allclose(ours, figures, rtol=1e-6)
    assert ours_after == after


def test_a_forks_own_item_code_is_run():
    class Brighter(TensorDataset):
        def __getitem__(self, index):
            return self.images[index] + 1, self.labels[index]

    Brighter.__name__ = "TensorDataset"
    args = arguments(**AUGMENTATIONS["none"])
    figures, ours = (trained(epoch, Brighter(*tensors()), args)[1] for epoch in (literal_epoch, dc.epoch))
    np.testing.assert_allclose(ours, figures, rtol=1e-6)


def test_collating_and_workers_of_ones_own_are_used():
    def doubled(items):
        return torch.stack([item[0] for item in items * 2]), torch.tensor([item[1] for item in items * 2])

    args = arguments(**AUGMENTATIONS["none"])
    figures, ours = (
        trained(epoch, TensorDataset(*tensors()), args, collate_fn=doubled)[1] for epoch in (literal_epoch, dc.epoch)
    )
    np.testing.assert_allclose(ours, figures, rtol=1e-6)


@pytest.mark.parametrize("kind", [dc.TensorDataset, TensorDataset, torch.utils.data.TensorDataset])
def test_tensors_are_not_read_item_by_item(kind, monkeypatch):
    def refuse(self):
        raise AssertionError("iterated over")

    monkeypatch.setattr(DataLoader, "__iter__", refuse)
    args, x_y = arguments(**AUGMENTATIONS["none"]), tensors()
    trained(dc.epoch, kind(*x_y), args)
    dc.epoch("test", DataLoader(kind(*x_y)), network(), None, nn.CrossEntropyLoss(), args, False)


def test_fast_draws_leave_the_generators_alone_and_repeat():
    seed(11)
    before = torch.get_rng_state()
    runs = []
    with compat.use_rng("fast"):
        for _ in range(2):
            compat.seed(4)
            net = network()
            loader, optimizer = DataLoader(TensorDataset(*tensors()), batch_size=16, shuffle=True), sgd(net)
            args = arguments(**AUGMENTATIONS["dsa"])
            dc.epoch("train", loader, net, optimizer, nn.CrossEntropyLoss(), args, True)
            dc.epoch("test", DataLoader(Triples()), net, None, nn.CrossEntropyLoss(), args, False)
            runs.append(torch.cat([p.flatten() for p in net.parameters()]))
    assert torch.equal(*runs)
    assert torch.equal(torch.get_rng_state(), before)


def test_fast_orders_have_every_image_once_and_differ():
    class Seen(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer, self.rows = nn.Linear(1, CLASSES), []

        def forward(self, x):
            self.rows.append(x[:, 0, 0, 0].long())
            return self.layer(x[:, 0, 0, :1])

    x = torch.arange(40.0).view(40, 1, 1, 1).expand(40, 3, 4, 4)
    loader = DataLoader(TensorDataset(x, torch.zeros(40).long()), batch_size=16, shuffle=True)
    net, orders = Seen(), []
    for _ in range(2):
        args = arguments(**AUGMENTATIONS["none"])
        dc.epoch("train", loader, net, sgd(net, 0), nn.CrossEntropyLoss(), args, False, rng="fast")
        assert [len(rows) for rows in net.rows] == [16, 16, 8]
        orders.append(torch.cat(net.rows))
        net.rows.clear()
    assert all(sorted(order.tolist()) == list(range(40)) for order in orders)
    assert not torch.equal(*orders)


def figures_of(loader, net=None, *, epoch=dc.epoch):
    """Loss and accuracy of a test pass."""
    return epoch("test", loader, net or network(), None, nn.CrossEntropyLoss(), arguments(), False)


def test_a_test_set_is_decoded_once():
    data = Triples()
    loader = DataLoader(data, batch_size=8)
    expected = figures_of(loader, epoch=literal_epoch)
    data.asked[0] = 0
    found = [figures_of(loader) for _ in range(3)]
    assert data.asked[0] <= len(data) + 1
    np.testing.assert_allclose(found, [expected] * 3, rtol=1e-6)


def test_what_was_kept_goes_with_its_loader():
    before = len(batches.__globals__["_kept"])
    loader = DataLoader(Triples())
    figures_of(loader)
    assert len(batches.__globals__["_kept"]) == before + 1
    del loader
    assert len(batches.__globals__["_kept"]) == before


@pytest.mark.parametrize("change", ["attribute", "in place", "inner"])
def test_a_changed_data_set_is_decoded_again(change):
    data = Triples()
    loader = DataLoader(torch.utils.data.Subset(data, range(20)) if change == "inner" else data)
    figures_of(loader)
    if change == "in place":
        data.images.mul_(2)
    else:
        data.images = data.images * 2
    np.testing.assert_allclose(figures_of(loader), figures_of(loader, epoch=literal_epoch), rtol=1e-6)


@pytest.mark.parametrize("source", ["torch", "numpy", "random"])
def test_random_items_are_drawn_anew(source):
    import random

    noise = {"torch": lambda: torch.rand(()).item(), "numpy": np.random.rand, "random": random.random}[source]

    class Noisy(Triples):
        def __getitem__(self, i):
            self.asked[0] += 1
            return self.images[i] * noise(), int(self.labels[i])

    data = Noisy()
    loader, results = DataLoader(data), []
    for epoch in (literal_epoch, dc.epoch, dc.epoch):
        seed()
        random.seed(5)
        results.append((*figures_of(loader, epoch=epoch), *draws()))
    np.testing.assert_allclose(results[1:], results[:1] * 2, rtol=1e-6)


def test_a_test_set_that_does_not_fit_is_not_kept(monkeypatch):
    enough = types.SimpleNamespace(available=4 * 30 * 3 * SIDE * SIDE * 4)
    monkeypatch.setattr("psutil.virtual_memory", lambda: enough)
    data = Triples()
    loader = DataLoader(data)
    for _ in range(2):
        figures_of(loader)
    assert data.asked[0] == 31
    enough.available -= 4
    other = DataLoader(data)
    for _ in range(2):
        figures_of(other)
    assert data.asked[0] >= 31 + 60


def test_kept_batches_draw_what_the_loader_would():
    loader = DataLoader(Triples(), batch_size=8)
    after = []
    for epoch in (literal_epoch, dc.epoch, dc.epoch):
        seed()
        figures_of(loader, epoch=epoch)
        after.append(draws())
    assert after[0] == after[1] == after[2]


def test_a_network_may_write_to_its_input():
    class Doubling(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = network()

        def forward(self, x):
            return self.net(x.mul_(2))

    for data in (Triples(), TensorDataset(*tensors())):
        loader, net = DataLoader(data, batch_size=8), Doubling()
        first = figures_of(loader, net)
        assert figures_of(loader, net) == first


def test_testing_records_no_gradient_and_does_not_train():
    net = network("ConvNetBN")
    modes = []
    net.register_forward_hook(lambda module, *_: modes.append((torch.is_grad_enabled(), module.training)))
    before = copy.deepcopy(net.state_dict())
    figures_of(DataLoader(Triples()), net)
    assert set(modes) == {(False, False)}
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


def test_an_empty_loader_is_refused():
    with pytest.raises(ZeroDivisionError, match="no images"):
        figures_of(DataLoader(TensorDataset(*tensors(0))))


def test_dms_script_without_dsa_has_no_augmentation():
    args = arguments(dsa=False)
    assert not hasattr(args, "dc_aug_param")
    net = network()
    loader = DataLoader(TensorDataset(*tensors()), batch_size=16)
    ours = dc.epoch("train", loader, net, sgd(net), nn.CrossEntropyLoss(), args, True)
    other = network()
    args.dc_aug_param = None
    expected = literal_epoch("train", loader, other, sgd(other), nn.CrossEntropyLoss(), args, True)
    np.testing.assert_allclose(ours, expected, rtol=1e-6)


def literal_fairness(loader, net, args):
    """The published counts, cell by cell, with what is added to each after every batch."""
    right, total = torch.zeros(2, args.num_groups, args.num_classes)
    with torch.no_grad():
        for x, y, a, *_ in loader:
            predicted = net(x).argmax(1)
            for g, c in itertools.product(range(args.num_groups), range(args.num_classes)):
                cell = (a == g) & (y == c)
                right[g, c] += (predicted[cell] == c).sum()
                total[g, c] += cell.sum()
            total += 1e-8
    accuracy = right / total
    gaps = accuracy.max(0).values - accuracy.min(0).values
    return gaps.max().item(), gaps.mean().item()


@pytest.mark.parametrize("empty", [False, True])
def test_fairness_counts_every_class_and_group(empty):
    data = Triples(60)
    if empty:
        data.groups[data.labels == 1] = 0
        data.groups[:4] = GROUPS + 5  # a group that the script has not counted
    net, args, loader = network(), arguments(), DataLoader(data, batch_size=16)
    loss, accuracy, *gaps = fairdd.epoch_Fairness_Metric("test", loader, net, nn.CrossEntropyLoss(), args, False)
    np.testing.assert_allclose((loss, accuracy), figures_of(loader, net, epoch=literal_epoch), rtol=1e-6)
    np.testing.assert_allclose(gaps, literal_fairness(loader, net, args), rtol=1e-6)
    assert gaps[0] > 0


def line(text: str) -> str:
    """A printed line with the figures taken out."""
    return re.sub(r"\d+", "#", text)


@pytest.mark.parametrize("augmentation", AUGMENTATIONS)
def test_evaluation_is_the_literal_protocol(augmentation, capsys):
    args, data = arguments(**AUGMENTATIONS[augmentation]), DataLoader(Triples(), batch_size=8)
    expected, net = network(), network()
    seed()
    losses = literal_evaluation(expected, *tensors(), args)
    expected_test, after = figures_of(data, expected, epoch=literal_epoch)[1], draws()
    seed()
    same, acc_train, acc_test = dc.evaluate_synset(7, net, *tensors(), data, args)
    assert draws() == after
    assert same is net
    same_parameters(net, expected)
    assert (acc_train, acc_test) == (losses[-1][1], expected_test)
    printed = capsys.readouterr().out
    assert f"train loss = {losses[-1][0]:.6f} train acc = {acc_train:.4f}, test acc = {acc_test:.4f}\n" in printed
    assert line(printed) == (
        "[#-#-# #:#:#] Evaluate_#: epoch = # train time = # s train loss = #.# train acc = #.#, test acc = #.#\n"
    )


def test_fairdd_evaluates_in_percent(capsys):
    args, loader = arguments(**AUGMENTATIONS["none"]), DataLoader(Triples(), batch_size=8)
    expected, net = network(), network()
    seed()
    (_, acc_train) = literal_evaluation(expected, *tensors(), args)[-1]
    seed()
    found = fairdd.evaluate_synset(0, net, *tensors(), loader, args)
    _, acc_test = figures_of(loader, expected, epoch=literal_epoch)
    percent = [round(100 * value, 2) for value in (acc_test, *literal_fairness(loader, expected, args))]
    assert found[0] is net
    assert found[1] == acc_train
    assert list(found[2:]) == percent
    assert capsys.readouterr().out.endswith(
        f"train acc = {acc_train:.2f}, test acc = {percent[0]:.2f}, max_Equalized_Odds = {percent[1]:.2f}, "
        f"mean_Equalized_Odds = {percent[2]:.2f}\n"
    )


@pytest.mark.parametrize("return_loss", [False, True])
def test_mtt_returns_every_epoch(return_loss):
    args, loader = arguments(**AUGMENTATIONS["dsa"]), DataLoader(Triples(), batch_size=8)
    expected, net = network(), network()
    seed()
    losses, accuracies = zip(*literal_evaluation(expected, *tensors(), args), strict=True)
    seed()
    found = mtt.evaluate_synset(0, net, *tensors(), loader, args, return_loss=return_loss)
    loss_test, acc_test = figures_of(loader, expected, epoch=literal_epoch)
    assert found[:3] == (net, list(accuracies), acc_test)
    assert len(found) == (5 if return_loss else 3)
    if return_loss:
        np.testing.assert_allclose(found[3], losses, rtol=1e-5)
        assert found[4] == pytest.approx(loss_test, rel=1e-5)


def windows(x, y, args):
    """MTT's texture: every image rolled by random numbers, and its corner."""
    most, (h, w) = args.im_size[0] * args.canvas_size, args.im_size
    rolled = [
        torch.roll(im, (torch.randint(most, (1,)).item(), torch.randint(most, (1,)).item()), (1, 2))[:, :h, :w]
        for _ in range(args.canvas_samples)
        for im in x
    ]
    return torch.stack(rolled), torch.cat([y] * args.canvas_samples)


def test_texture_trains_on_windows_of_a_torus():
    args = arguments(**AUGMENTATIONS["none"], im_size=(8, 8), canvas_size=2, canvas_samples=3)
    nets, figures, after = [], [], []
    for epoch in (literal_epoch, mtt.epoch):
        net = models.build("ConvNetASwish", 3, CLASSES, (8, 8), width=8, depth=2, key=3)
        seed()
        loader, options = DataLoader(TensorDataset(*tensors()), batch_size=16, shuffle=True), {"texture": True}
        if epoch is literal_epoch:
            options = {"prepare": lambda x, y: windows(x, y, args)}
        figures.append(epoch("train", loader, net, sgd(net), nn.CrossEntropyLoss(), args, True, **options))
        nets.append(net)
        after.append(draws())
    same_parameters(*nets)
    np.testing.assert_allclose(*figures, rtol=1e-6)
    assert after[0] == after[1]


def test_fast_windows_are_of_the_torus_too():
    args = arguments(im_size=(4, 4), canvas_size=2, canvas_samples=2)
    x = torch.arange(5 * 64.0).view(5, 1, 8, 8)
    found = mtt_training._canvas_samples(x, args, "fast")
    assert found.shape == (10, 1, 4, 4)
    possible = [torch.roll(x, (i, j), (2, 3))[:, :, :4, :4] for i in range(8) for j in range(8)]
    for number, window in enumerate(found):
        assert any(torch.equal(window, of[number % 5]) for of in possible)
    assert len({window[0, 0, 0].item() % 64 for window in found}) > 3


def test_imagenets_numbers_are_the_subsets_labels():
    args = arguments(dataset="ImageNet", subset="imagewoof")
    numbers = torch.tensor(mtt.IMAGENET_NUMBERS["imagewoof"])
    x, y = tensors(20)
    net = models.build("ConvNetASwish", 3, 10, (SIDE, SIDE), width=8, depth=2)
    for mode, labels in (("test", numbers[y]), ("train", y)):
        loader = DataLoader(TensorDataset(x, labels), batch_size=8)
        found = mtt.epoch(mode, loader, net, sgd(net, 0), nn.CrossEntropyLoss(), args, False)
        expected = F.cross_entropy(net(x), y).item()
        assert found[0] == pytest.approx(expected, rel=1e-6)


def test_tables():
    assert [dc.get_loops(ipc) for ipc in (1, 10, 20, 30, 40, 50)] == [
        *((1, 1), (10, 50), (20, 25), (30, 20), (40, 15), (50, 10)),
    ]
    assert fairdd.get_loops(51) == (100, 10)
    for function, ipc in ((dc.get_loops, 51), (dc.get_loops, 5), (fairdd.get_loops, 5)):
        with pytest.raises(SystemExit, match=f"loop hyper-parameters are not defined for {ipc} ipc"):
            function(ipc)
    assert dc.get_daparam("MNIST", "ConvNet", "ConvNet", 1)["strategy"] == "crop_scale_rotate"
    assert dc.get_daparam("MNIST", "ConvNet", "ConvNetBN", 1)["strategy"] == "crop_noise"
    assert dc.get_daparam("CIFAR10", "ConvNet", "ConvNet", 1) == {
        **{"crop": 4, "scale": 0.2, "rotate": 45, "noise": 0.001, "strategy": "none"}
    }
    assert dc.get_default_convnet_setting() == (128, 3, "relu", "instancenorm", "avgpooling")
    assert re.fullmatch(r"\[\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\]", dc.get_time())


def test_evaluation_pools(capsys):
    assert dc.get_eval_pool("S", "ConvNetBN", "x") == ["ConvNet"]
    assert "replace BN with IN" in capsys.readouterr().out
    assert mtt.get_eval_pool("S", "ConvNetBN", "x") == dc.get_eval_pool("S", "ConvNet", "x")
    assert not capsys.readouterr().out
    assert dc.get_eval_pool("SS", "ConvNetBN", "x") == ["ConvNetBN"]
    assert dc.get_eval_pool("X", "ConvNet", "LeNet") == mtt.get_eval_pool("SS", "a", "LeNet")
    assert mtt.get_eval_pool("C", "ConvNetD4", "x") == ["ConvNetD4", "ConvNet"]
    dc.get_eval_pool("M", "ConvNet", "x").append("mine")
    assert "mine" not in dc.get_eval_pool("M", "ConvNet", "x")


# The originals.


@pytest.fixture
def original(upstream, monkeypatch):
    """``original(family)``: its utils, able to run here."""

    def find(family):
        utils = upstream(family)[1]["utils"]
        if family == "mtt":
            monkeypatch.setattr(utils, "tqdm", types.SimpleNamespace(tqdm=iter), raising=False)
        monkeypatch.setattr(torch.Tensor, "cuda", lambda tensor: tensor)
        return utils

    return find


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("augmentation", AUGMENTATIONS)
@pytest.mark.parametrize("family", ["dc", "fairdd", "mtt"])
def test_the_originals_epoch(original, family, augmentation):
    utils = original(family)
    ours = mtt.epoch if family == "mtt" else dc.epoch
    args = arguments(**AUGMENTATIONS[augmentation])
    args.dsa_param = utils.ParamDiffAug()
    expected, figures, after = trained(utils.epoch, utils.TensorDataset(*tensors()), args)
    net, found, found_after = trained(ours, utils.TensorDataset(*tensors()), args)
    # Angles come from another sine: augmented pixels are equal to 1e-5.
    same_parameters(net, expected, 1e-4 if augmentation == "dsa" else 1e-6)
    np.testing.assert_allclose(found, figures, rtol=1e-5)
    assert found_after == after


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("family", "ours", "options"),
    [
        ("dc", dc.evaluate_synset, {}),
        ("fairdd", fairdd.evaluate_synset, {}),
        ("mtt", mtt.evaluate_synset, {"return_loss": True}),
    ],
)
def test_the_originals_evaluation(original, family, ours, options, capsys):
    utils = original(family)
    results, lines = [], []
    for evaluate in (utils.evaluate_synset, ours):
        args = arguments(**AUGMENTATIONS["dsa"], dc_aug_param=None)
        args.dsa_param = utils.ParamDiffAug()
        net = network()
        seed()
        found = evaluate(3, net, *tensors(), DataLoader(Triples(), batch_size=8), args, **options)
        assert found[0] is net
        results.append((found[1:], draws()))
        lines.append(line(capsys.readouterr().out))
        flat = torch.cat([p.detach().flatten() for p in net.parameters()])
        results[-1] += (flat,)
    (theirs, after, parameters), (mine, mine_after, own) = results
    torch.testing.assert_close(own, parameters, rtol=1e-4, atol=1e-4)
    for a, b in zip(theirs, mine, strict=True):
        np.testing.assert_allclose(b, a, rtol=1e-4)
    assert mine_after == after
    assert lines[0] == lines[1]


@pytest.mark.parametrize(("family", "ours"), [("dc", dc), ("fairdd", fairdd), ("mtt", mtt)])
def test_the_originals_tables(original, family, ours):
    utils = original(family)
    for mode in ("M", "B", "W", "D", "A", "P", "N", "S", "SS", "C", "other"):
        assert ours.get_eval_pool(mode, "ConvNetBN", "LeNet") == utils.get_eval_pool(mode, "ConvNetBN", "LeNet")
    for dataset, model in itertools.product(("MNIST", "CIFAR10"), ("ConvNet", "ConvNetBN")):
        assert ours.get_daparam(dataset, "x", model, 1) == utils.get_daparam(dataset, "x", model, 1)
    if family != "mtt":
        for ipc in (1, 10, 20, 30, 40, 50, 2, 100):
            found = []
            for function in (ours.get_loops, utils.get_loops):
                try:
                    found.append(function(ipc))
                except SystemExit as stop:
                    found.append(str(stop))
            assert found[0] == found[1]


@pytest.mark.filterwarnings("ignore")
def test_the_originals_texture(original):
    utils = original("mtt")
    args = arguments(**AUGMENTATIONS["none"], im_size=(8, 8), canvas_size=2, canvas_samples=2)
    found = []
    for epoch in (utils.epoch, mtt.epoch):
        net = models.build("ConvNetASwish", 3, CLASSES, (8, 8), width=8, depth=2, key=3)
        seed()
        loader = DataLoader(utils.TensorDataset(*tensors()), batch_size=16, shuffle=True)
        found.append((*epoch("train", loader, net, sgd(net), nn.CrossEntropyLoss(), args, True, True), *draws()))
    np.testing.assert_allclose(*found, rtol=1e-6)


def test_the_originals_fairness(original):
    utils = original("fairdd")
    data = Triples(60)
    data.groups[data.labels == 1] = 0
    loader, net, args = DataLoader(data, batch_size=16), network(), arguments()
    theirs, ours = (
        module.epoch_Fairness_Metric("test", loader, net, nn.CrossEntropyLoss(), args, False)
        for module in (utils, fairdd)
    )
    np.testing.assert_allclose(ours, theirs, rtol=1e-6)
