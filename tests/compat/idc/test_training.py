from types import SimpleNamespace

import numpy as np
import pytest
import scipy.stats
import torch
import torch.nn.functional as F
from torch import nn

from fastdd import ops
from fastdd.compat import seed as seed_fast
from fastdd.compat.hook import checkout
from fastdd.compat.idc import training as ours


def settings(**changed):
    given = {
        "mix_p": 0.6,
        "beta": 1.0,
        "nclass": 6,
        "epochs": 6,
        "epoch_print_freq": 2,
        "print_freq": 10,
        "verbose": False,
        "lr": 0.05,
        "momentum": 0.9,
        "weight_decay": 5e-4,
        "mixup": "cut",
        "dsa": True,
        "dsa_strategy": "color_crop_cutout_flip_scale_rotate",
        "pretrained": False,
        "save_ckpt": False,
    }
    return SimpleNamespace(**{**given, **changed})


class Batches(list):
    """What a loader gives."""

    device = "cpu"


def batches(n=5):
    generator = torch.Generator().manual_seed(0)
    return Batches(
        (torch.rand(12, 3, 8, 8, generator=generator), torch.randint(6, (12,), generator=generator)) for _ in range(n)
    )


def make_net():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 5, 3, stride=2), nn.Tanh(), nn.Flatten(), nn.Linear(45, 6))
    return net, torch.optim.SGD(net.parameters(), 0.1, momentum=0.9)


def run_seeded(function):
    torch.manual_seed(77)
    np.random.seed(78)
    result = function()
    state = np.random.get_state()
    return result, (torch.get_rng_state().tolist(), state[1].tolist(), state[2])


def literal_epoch(args, loader, net, optimizer, mixup):
    """An epoch as published."""
    right, five, losses, n = 0, 0, 0.0, 0
    for images, target in loader:
        images, other, kept = images.clone(), target, 1.0
        if np.random.rand(1) < args.mix_p and mixup == "cut":
            lam = np.random.beta(args.beta, args.beta)
            order = torch.randperm(len(target))
            half = [int(side * np.sqrt(1 - lam)) // 2 for side in (8, 8)]
            centre = [np.random.randint(8), np.random.randint(8)]
            first, last = (
                [min(max(c + sign * h, 0), 8) for c, h in zip(centre, half, strict=True)] for sign in (-1, 1)
            )
            rows, columns = slice(first[0], last[0]), slice(first[1], last[1])
            images[:, :, rows, columns] = images.clone()[order][:, :, rows, columns]
            other, kept = target[order], 1 - (last[0] - first[0]) * (last[1] - first[1]) / 64
        logits = net(images)
        loss = F.cross_entropy(logits, target) * kept + F.cross_entropy(logits, other) * (1 - kept)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        best = logits.argsort(1, descending=True)
        right, five = right + (best[:, 0] == target).sum().item(), five + (best[:, :5] == target[:, None]).sum().item()
        losses, n = losses + loss.item() * len(target), n + len(target)
    return 100 * right / n, 100 * five / n, losses / n


@pytest.mark.parametrize("mixup", ["cut", "vanilla"])
def test_a_legacy_epoch_is_the_published_one(mixup):
    results = []
    for epoch in (
        lambda net, optimizer: literal_epoch(settings(), batches(), net, optimizer, mixup),
        lambda net, optimizer: ours.train_epoch(
            settings(), batches(), net, nn.CrossEntropyLoss(), optimizer, mixup=mixup, rng="legacy"
        ),
    ):
        net, optimizer = make_net()
        figures, state = run_seeded(lambda: epoch(net, optimizer))  # noqa: B023
        results.append((figures, state, list(net.parameters())))
    (expected, before, expected_net), (got, after, net) = results
    np.testing.assert_allclose(got, expected, rtol=1e-5)
    assert after == before
    torch.testing.assert_close(net, expected_net)


def test_fast_epochs_leave_the_global_generators_and_the_batches_alone():
    loader = batches()
    results = []
    for _ in range(2):
        seed_fast(3)
        net, optimizer = make_net()
        args = settings(mix_p=1.0)
        results.append(
            run_seeded(
                lambda: ours.train_epoch(args, loader, net, F.cross_entropy, optimizer, mixup="cut", rng="fast")  # noqa: B023
            )
        )
    assert results[0] == results[1]
    assert results[0][1] == run_seeded(lambda: None)[1]
    assert all(torch.equal(a[0], b[0]) for a, b in zip(loader, batches(), strict=True))


def test_an_epoch_ends_after_enough_images():
    net, optimizer = make_net()
    seen = []
    loader = (seen.append(i) or batch for i, batch in enumerate(batches(9)))
    ours.train_epoch(settings(), loader, net, F.cross_entropy, optimizer, n_data=30)
    assert seen == [0, 1, 2]


def test_augmentation_and_log_lines():
    net, optimizer = make_net()
    lines, shapes = [], []
    aug = lambda x: shapes.append((x.shape, torch.is_grad_enabled())) or x  # noqa: E731
    args = settings(epoch_print_freq=2)
    for epoch in (1, 2):
        ours.train_epoch(args, batches(1), net, F.cross_entropy, optimizer, epoch, lines.append, aug)
    assert len(lines) == 1
    assert lines[0].startswith("(Train) [Epoch 2/6] [")
    assert shapes == [((12, 3, 8, 8), False)] * 2


def test_rectangles_by_hand():
    # A quarter is kept of 1 - 0.75: half of each side, 4 x 6 of 8 x 12, about the centre.
    assert ops.cutmix_rectangle((8, 12), 0.25, 4, 5) == (2, 2, 6, 8)
    assert ops.cutmix_rectangle((8, 12), 0.25, 0, 11) == (0, 8, 2, 12)
    np.random.seed(0)
    top, left, bottom, right = ours.rand_bbox((1, 1, 8, 12), 0.0)
    assert 0 <= top < bottom <= 8
    assert 0 <= left < right <= 12


def test_fast_cutmix_has_the_published_distribution(monkeypatch):
    seed_fast(1)
    drawn = []
    monkeypatch.setattr(ops, "cutmix_rectangle", lambda size, part, *centre: drawn.append((1 - part, *centre)))
    args, target, least = settings(mix_p=0.3, beta=0.4), torch.arange(5), 1e-3
    mixed = [ours._cutmix(args, (5, 3, 8, 5), target, "fast") for _ in range(6000)]
    assert scipy.stats.binomtest(len(drawn), 6000, 0.3).pvalue > least
    areas, rows, columns = np.array(drawn).T
    assert scipy.stats.kstest(areas, scipy.stats.beta(0.4, 0.4).cdf).pvalue > least
    assert scipy.stats.chisquare(np.bincount(rows.astype(int), minlength=8)).pvalue > least
    assert scipy.stats.chisquare(np.bincount(columns.astype(int), minlength=5)).pvalue > least
    assert all(sorted(one[0].tolist()) == [0, 1, 2, 3, 4] for one in mixed if one is not None)


def test_orders_within_classes():
    labels = torch.tensor([0, 1, 0, 1, 1, 2])
    torch.manual_seed(0)
    index = ours.random_indices(labels, nclass=4, intraclass=True)
    assert torch.equal(labels[index], labels)
    assert sorted(index.tolist()) == list(range(6))
    assert sorted(ours.random_indices(labels).tolist()) == list(range(6))


def test_validation_by_hand():
    logits = torch.tensor([[5.0, 4, 3, 2, 1, 0], [0, 1, 2, 3, 4, 5.0], [5.0, 4, 3, 2, 1, 0], [9.0, 0, 0, 0, 0, -1]])
    labels = torch.tensor([0, 4, 5, 0])
    net = nn.Sequential(nn.Flatten(), nn.Linear(6, 6, bias=False), nn.Dropout(0.9))
    with torch.no_grad():
        net[1].weight.copy_(torch.eye(6))
    loader = [(logits[:3].view(3, 6, 1, 1), labels[:3]), (logits[3:].view(1, 6, 1, 1), labels[3:])]
    lines = []
    top1, top5, loss = ours.validate(settings(), loader, net, F.cross_entropy, 4, lines.append)
    assert (top1, top5) == (50.0, 75.0)
    assert abs(loss - F.cross_entropy(logits, labels).item()) < 1e-6
    assert lines[0].startswith("(Test ) [Epoch 4/6] [")
    assert "Top1 50.0  Top5 75.0" in lines[0]


def test_networks_are_trained_and_tested_as_often_as_asked():
    made, lines = [], []

    def model_fn(args, nclass, logger):
        made.append(nclass)
        return make_net()[0]

    args = settings(epochs=8)
    ours.test_data(args, batches(3), batches(2), model_fn=model_fn, repeat=2, logger=lines.append, num_val=4)
    assert made == [6, 6]
    assert args.epoch_print_freq == 2
    assert len(lines) == 1
    assert lines[0].startswith("Repeat 2 => Best, last acc: ")


def test_checkpoints(tmp_path):
    net = make_net()[0]
    expected = {name: torch.randn_like(value) for name, value in net.state_dict().items()}
    for content in (
        expected,
        {"state_dict": {f"module.{name}": value for name, value in expected.items()}, "epoch": 3},
    ):
        net = make_net()[0]
        torch.save(content, tmp_path / "checkpoint.pth.tar")
        ours.load_ckpt(net, str(tmp_path / "checkpoint.pth.tar"), verbose=False)
        assert all(torch.equal(value, expected[name]) for name, value in net.state_dict().items())


def test_a_checkpoint_that_runs_code_is_refused(tmp_path):
    class Code:
        def __reduce__(self):
            return print, ("run",)

    torch.save({"state_dict": Code()}, tmp_path / "bad.pth")
    with pytest.raises(Exception, match=r"would run code \(print\): refused"):
        ours.load_ckpt(make_net()[0], str(tmp_path / "bad.pth"))


def test_upstream_training(upstream, monkeypatch, capsys):
    folder, _ = upstream("idc")
    make = torch.tensor
    monkeypatch.setattr(torch, "tensor", lambda *args, device=None, **keywords: make(*args, **keywords))
    monkeypatch.setattr(torch.Tensor, "cuda", lambda self: self)
    monkeypatch.setattr(nn.Module, "cuda", lambda self: self)
    # Gone from numpy since 1.24.
    monkeypatch.setattr(np, "int", int, raising=False)
    published, utils = checkout.modules(folder, ["train", "misc.utils"])
    indices = utils.random_indices
    monkeypatch.setattr(published, "random_indices", lambda y, **given: indices(y, **{**given, "device": "cpu"}))
    results = []
    for code, keywords in ((published, {}), (ours, {"rng": "legacy"})):
        net = make_net()[0]
        train = lambda code=code, net=net, keywords=keywords: code.train(  # noqa: E731
            settings(), net, batches(3), batches(2), None, print, **keywords
        )
        found, state = run_seeded(train)
        results.append((found, state, list(net.parameters())))
    (expected, before, expected_net), (got, after, net) = results
    np.testing.assert_allclose(got, expected, rtol=1e-5)
    assert after == before
    torch.testing.assert_close(net, expected_net, rtol=1e-3, atol=1e-5)
    capsys.readouterr()
