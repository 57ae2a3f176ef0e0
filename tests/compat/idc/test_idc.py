import re
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import BatchSampler, Dataset, SubsetRandomSampler

from fastdd.compat import idc as ours
from fastdd.compat import seed as seed_fast
from fastdd.compat.hook import checkout
from fastdd.compat.idc import synthesizer

CLASSES = 4


class Items(Dataset):
    """Images that tell their number, in classes of different sizes."""

    def __init__(self, n=90, dtype=torch.float32):
        generator = torch.Generator().manual_seed(0)
        self.images = torch.rand(n, 3, 8, 8, generator=generator)
        if dtype == torch.uint8:
            self.images = (self.images * 255).byte()
        self.targets = torch.randint(CLASSES, (n,), generator=generator).tolist()
        self.nclass = CLASSES

    def __getitem__(self, index):
        if index >= len(self.targets):
            raise IndexError
        return self.images[index], self.targets[index]

    def __len__(self):
        return len(self.targets)


def of_class(items, c):
    return [i for i, target in enumerate(items.targets) if target == c]


def found(items, images):
    """The numbers of images."""
    return [int((items.images.flatten(1) == image.flatten()).all(1).nonzero()) for image in images]


def settings(**changed):
    given = {"ipc": 5, "factor": 2, "decode_type": "single", "dataset": "cifar10", "batch_size": 8, "workers": 0}
    return SimpleNamespace(**{**given, **changed})


def make_loader(kind, items, **keywords):
    if kind is ours.ClassDataLoader:
        return kind(items, batch_size=16, shuffle=True, drop_last=True, **keywords)
    return kind(items, batch_size=16, device="cpu", **keywords)


LOADERS = [ours.ClassDataLoader, ours.ClassMemDataLoader]


def test_tensor_dataset():
    images, labels = torch.rand(3, 1, 4, 4, dtype=torch.float64, requires_grad=True), torch.tensor([2, 0, 1])
    items = ours.TensorDataset(images, labels)
    assert len(items) == 3
    assert items[1][0].dtype == torch.float32
    assert torch.equal(items[1][0], images[1].float())
    assert not items.images.requires_grad
    assert items[2][1] == 1
    assert torch.equal(ours.TensorDataset(images, labels, lambda x: x + 1)[0][0], images[0].float() + 1)


@pytest.mark.parametrize("kind", LOADERS)
def test_batches_of_a_class_go_round_it_in_new_orders(kind):
    items = Items()
    for rng in ("legacy", "fast"):
        loader = make_loader(kind, items, rng=rng)
        for c in range(CLASSES):
            every = of_class(items, c)
            batches = [loader.class_sample(c) for _ in range(2)]
            assert all(torch.equal(labels, torch.full((len(images),), c)) for images, labels in batches)
            # A batch is at most as large as the class.
            assert all(len(images) == min(16, len(every)) for images, _ in batches)
            numbers = [found(items, images) for images, _ in batches]
            assert all(set(of_batch) <= set(every) for of_batch in numbers)
            assert all(len(set(of_batch)) == len(of_batch) for of_batch in numbers)
            if len(every) // 16 >= 2:
                assert not set(numbers[0]) & set(numbers[1])
            assert numbers[0] != numbers[1]
            first, labels = loader.class_sample(c, 7)
            assert found(items, first) == every[:7]
            assert len(labels) == 7


def test_the_legacy_order_is_that_of_torchs_samplers():
    items = Items()
    torch.manual_seed(3)
    samplers = [
        BatchSampler(SubsetRandomSampler(of_class(items, c)), min(16, items.targets.count(c)), drop_last=True)
        for c in range(CLASSES)
    ]

    def rounds(sampler):
        while True:
            yield from sampler

    iterators = [rounds(sampler) for sampler in samplers]
    expected = [next(iterators[c]) for _ in range(7) for c in range(CLASSES)]
    everything = rounds(BatchSampler(SubsetRandomSampler(range(len(items))), 16, drop_last=False))
    expected += [next(everything) for _ in range(14)]
    state = torch.get_rng_state()
    loader = ours.ClassMemDataLoader(items, 16, device="cpu", rng="legacy")
    torch.manual_seed(3)
    got = [found(items, loader.class_sample(c)[0]) for _ in range(7) for c in range(CLASSES)]
    got += [found(items, loader.sample()[0]) for _ in range(14)]
    assert got == expected
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("kind", LOADERS)
def test_an_epoch_has_every_image_once(kind):
    items = Items()
    for rng in ("legacy", "fast"):
        loader = make_loader(kind, items, rng=rng)
        # drop_last is the one loader's default, and given to the other.
        expected = 90 // 16 if kind is ours.ClassDataLoader else 6
        for _ in range(2):
            batches = list(loader)
            assert len(batches) == len(loader) == expected
            numbers = [i for images, _ in batches for i in found(items, images)]
            assert len(set(numbers)) == len(numbers) == min(16 * expected, 90)
            assert [items.targets[i] for i in numbers] == torch.cat([labels for _, labels in batches]).tolist()


@pytest.mark.parametrize("kind", LOADERS)
def test_fast_loaders_leave_the_global_generators_alone(kind):
    torch.manual_seed(1)
    state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()

    def numbers():
        seed_fast(8)
        loader = make_loader(kind, Items(), rng="fast")
        return torch.cat([loader.class_sample(1)[0], loader.sample()[0], loader.class_sample(1)[0]])

    assert torch.equal(numbers(), numbers())
    assert torch.equal(torch.get_rng_state(), state)
    assert (np.random.get_state()[1] == numpy_state).all()


@pytest.mark.parametrize("kind", LOADERS)
def test_bytes_become_floats(kind):
    items = Items(dtype=torch.uint8)
    loader = make_loader(kind, items)
    if kind is ours.ClassMemDataLoader:
        assert loader.data.dtype == torch.uint8
        images, _ = loader.class_sample(2, 3)
        assert torch.equal(images, items.images[of_class(items, 2)[:3]].float() / 255)
    images, _ = loader.sample()
    assert images.dtype == torch.float32
    assert 0.9 < images.max() <= 1


def test_a_loader_reads_its_data_set_of_tensors_at_once():
    items = Items()
    tensors = ours.TensorDataset(items.images, torch.tensor(items.targets))
    tensors.nclass = CLASSES
    loader = ours.ClassMemDataLoader(tensors, 16, device="cpu")
    assert torch.equal(loader.data, items.images)
    assert torch.equal(loader.class_sample(1, 4)[0], items.images[of_class(items, 1)[:4]])


def test_an_empty_class_is_refused():
    items = Items()
    items.nclass = CLASSES + 1
    with pytest.raises(ValueError, match="class 4 has no images"):
        ours.ClassMemDataLoader(items, 16, device="cpu")


def test_class_batch_sampler_goes_through_the_classes():
    batches = iter(ours.ClassBatchSampler([[0, 1, 2], [3, 4, 5, 6]], 2, rng="fast"))
    got = [next(batches).tolist() for _ in range(6)]
    assert all(set(batch) <= ({0, 1, 2}, {3, 4, 5, 6})[i % 2] for i, batch in enumerate(got))
    assert set(got[1]) | set(got[3]) == {3, 4, 5, 6}


def test_statistics():
    # As DatasetCondensation has them for CIFAR.
    assert ours.MEANS["cifar100"] == ours.MEANS["cifar"] == [0.4914, 0.4822, 0.4465]
    assert ours.STDS["cifar10"] == [0.2023, 0.1994, 0.2010]
    names = {"cifar", "cifar10", "cifar100", "imagenet", "svhn", "mnist", "fashion"}
    assert ours.MEANS.keys() == ours.STDS.keys() == names


def test_normalize_and_compose():
    x = torch.rand(2, 3, 4, 4)
    y = ours.Compose([ours.Normalize([0.1, 0.2, 0.3], [1.0, 2.0, 4.0]), torch.neg])(x)
    for c, (mean, std) in enumerate([(0.1, 1), (0.2, 2), (0.3, 4)]):
        torch.testing.assert_close(y[:, c], (mean - x[:, c]) / std)


def test_diffaug_is_normalisation_and_augmentation():
    args = settings(aug_type="color_crop_cutout", mixup_net="cut")
    matching, training = ours.diffaug(args, "cpu", rng="legacy")
    assert (matching.transforms[1].batch, training.transforms[1].batch) == (True, False)
    assert matching.transforms[1].cutout
    # CutMix comes instead.
    assert not training.transforms[1].cutout
    assert ours.diffaug(settings(aug_type="cutout_flip", mixup_net="vanilla"), "cpu")[1].transforms[1].cutout
    x = torch.rand(2, 3, 8, 8)
    np.random.seed(1)
    expected = ours.DiffAug("color_crop_cutout", batch=True, rng="legacy")(
        ours.Normalize(ours.MEANS["cifar10"], ours.STDS["cifar10"])(x)
    )
    np.random.seed(1)
    assert torch.equal(matching(x), expected)


def test_distances_by_hand():
    x, y = torch.tensor([[[1.0, 2.0]], [[3.0, 4.0]]]), torch.tensor([[[1.0, 0.0]], [[0.0, 4.0]]])
    assert ours.dist(x, y) == 4 + 9
    assert ours.dist(x, y, "l1") == 2 + 3
    assert ours.dist(x, y, "l1_mean") == 2 / 2 + 3 / 2
    cosines = 1 / (5**0.5 * 1 + 1e-6), 16 / (5 * 4 + 1e-6)
    torch.testing.assert_close(ours.dist(x, y, "cos"), torch.tensor(2 - sum(cosines)))
    with pytest.raises(ValueError, match="not 'l2'"):
        ours.dist(x, y, "l2")
    assert ours.add_loss(ours.add_loss(None, x), y) is not None
    assert torch.equal(ours.add_loss(ours.add_loss(None, x), y), x + y)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList(
            [
                nn.Conv2d(3, 6, 3, padding=1),
                nn.GroupNorm(6, 6),
                nn.Tanh(),
                nn.AvgPool2d(4),
                nn.Flatten(),
                nn.Linear(24, 4),
            ]
        )

    def get_feature(self, x, idx_from, idx_to=-1):
        features = []
        for layer in self.layers:
            x = layer(x)
            features.append(x)
        return features[idx_from : idx_to + 1]

    def forward(self, x):
        return self.get_feature(x, 5, 5)[0]


def matched(dtype=torch.float64):
    torch.manual_seed(0)
    net = Net().to(dtype)
    real, synthetic = torch.rand(9, 3, 8, 8, dtype=dtype), torch.rand(4, 3, 8, 8, dtype=dtype, requires_grad=True)
    return net, real, synthetic, torch.full((9,), 2), torch.full((4,), 2)


@pytest.mark.parametrize("metric", ["mse", "l1", "l1_mean", "cos"])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("fc", [False, True])
def test_gradient_matching_is_the_distance_of_the_gradients_that_count(metric, bias, fc):
    net, real, synthetic, of_real, of_synthetic = matched()
    args = SimpleNamespace(match="grad", metric=metric, bias=bias, fc=fc)
    loss = ours.matchloss(args, real, synthetic, of_real, of_synthetic, net)
    names = ["layers.0.weight"] + bias * ["layers.0.bias", "layers.1.weight", "layers.1.bias", "layers.5.bias"]
    names += fc * ["layers.5.weight"]
    gradients = [
        dict(
            zip(
                dict(net.named_parameters()),
                torch.autograd.grad(F.cross_entropy(net(x), labels), list(net.parameters()), create_graph=True),
                strict=True,
            )
        )
        for x, labels in ((real, of_real), (synthetic, of_synthetic))
    ]
    expected = sum(ours.dist(gradients[0][name].detach(), gradients[1][name], metric) for name in names)
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(*(torch.autograd.grad(value, synthetic)[0] for value in (loss, expected)))


def test_feature_matching_is_the_distance_of_batch_means():
    net, real, synthetic, *labels = matched()
    args = SimpleNamespace(match="feat", metric="mse", idx_from=1, idx_to=3)
    loss = ours.matchloss(args, real, synthetic, *labels, net)
    means = [[feature.mean(0) for feature in net.get_feature(x, 1, 3)] for x in (real, synthetic)]
    expected = sum((a.detach() - b).square().sum() for a, b in zip(*means, strict=True))
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(*(torch.autograd.grad(value, synthetic)[0] for value in (loss, expected)))
    with pytest.raises(ValueError, match="feat or grad, not 'both'"):
        ours.matchloss(SimpleNamespace(match="both"), real, synthetic, *labels, net)


def literal_zoom(images, factor, size):
    """In float64, and rounded."""
    dtype, images = images.dtype, images.double()
    side = -(-images.shape[-1] // factor)
    more = side * factor - images.shape[-1]
    # The published padding is the factor less the remainder, which is the same.
    images = F.pad(images, (0, more, 0, more), value=0.5)
    parts = [
        images[:, :, i * side : (i + 1) * side, j * side : (j + 1) * side] for i in range(factor) for j in range(factor)
    ]
    return torch.cat([F.interpolate(part, size=size, mode="bilinear") for part in parts]).to(dtype)


def check_decoded(images, expected):
    """Of values in [0, 1], the same but for the rounding of a few operations."""
    torch.testing.assert_close(images, expected, rtol=0, atol=2.0**-22)


@pytest.mark.parametrize("factor", [1, 2, 3, 4])
@pytest.mark.parametrize("side", [8, 11])
def test_decoding_enlarges_the_parts(factor, side):
    images, labels = torch.rand(3, 2, side, side), torch.tensor([0, 0, 1])
    expected = literal_zoom(images, factor, (side, side))
    for decoded, targets in (
        ours.decode_zoom(images, labels, factor),
        ours.Synthesizer(settings(), 2, 2, side, side, "cpu").decode_zoom(images, labels, factor),
    ):
        check_decoded(decoded, expected)
        assert torch.equal(targets, labels.repeat(factor**2))
    decoded, targets = ours.decode_zoom_multi(images, labels, factor)
    check_decoded(decoded, torch.cat([literal_zoom(images, f, (side, side)) for f in range(1, factor + 1)]))
    assert len(targets) == len(decoded)


def test_decoding_a_set_class_by_class():
    images, labels = torch.rand(6, 1, 4, 4, requires_grad=True), torch.arange(3).repeat_interleave(2)
    args = SimpleNamespace(nclass=3, factor=2, decode_type="single")
    decoded, targets = ours.decode(args, images, labels)
    assert torch.equal(targets, torch.arange(3).repeat_interleave(8))
    check_decoded(decoded[8:16], literal_zoom(images.detach()[2:4], 2, 4))
    assert not decoded.requires_grad
    assert ours.decode_fn(images, labels, 1, "multi") == (images, labels)


def test_bounded_decoding_fills_the_bound_with_the_largest_factors():
    synthetic = ours.Synthesizer(settings(ipc=10, factor=3, decode_type="bound"), 1, 1, 6, 6, "cpu")
    data, targets = synthetic.decode(synthetic.data, synthetic.targets, bound=40)
    # Nine of each of the first three, leaving (40 - 27 - 7) // 4 = 1 of the others to be four, and six ones.
    expected = [
        literal_zoom(synthetic.data[:3], 3, 6),
        literal_zoom(synthetic.data[3:4], 2, 6),
        synthetic.data[4:],
    ]
    check_decoded(data, torch.cat(expected))
    assert len(targets) == 27 + 4 + 6


def test_long_images_are_refused():
    with pytest.raises(ValueError, match="must be square"):
        ours.decode_zoom(torch.rand(1, 1, 4, 8), torch.tensor([0]), 2)


def test_synthesizer_starts_with_noise_of_its_own():
    torch.manual_seed(4)
    expected = (torch.randn(20, 3, 8, 8) / 4 + 0.5).clamp(0, 1)
    torch.manual_seed(4)
    legacy = ours.Synthesizer(settings(), CLASSES, 3, 8, 8, "cpu", rng="legacy")
    assert torch.equal(legacy.data, expected)
    assert legacy.parameters()[0] is legacy.data
    assert legacy.data.is_leaf
    assert legacy.data.requires_grad
    assert torch.equal(legacy.targets, torch.arange(4).repeat_interleave(5))
    state = torch.get_rng_state()
    fast = ours.Synthesizer(settings(ipc=300), CLASSES, 3, 8, 8, "cpu", rng="fast")
    assert torch.equal(torch.get_rng_state(), state)
    # A clamped normal of deviation 1/4 about 1/2: 4.6 % on the ends.
    assert abs(fast.data.mean() - 0.5) < 5 * 0.25 / fast.data.numel() ** 0.5
    assert abs(((fast.data == 0) | (fast.data == 1)).double().mean() - 0.0455) < 0.005


@pytest.mark.parametrize(("side", "factor"), [(8, 1), (8, 2), (8, 3), (7, 2)])
def test_initialisation_from_real_images(side, factor):
    items = Items()
    items.images = items.images[:, :, :side, :side]
    loader = ours.ClassMemDataLoader(items, 16, device="cpu")
    synthetic = ours.Synthesizer(settings(ipc=2, factor=factor), CLASSES, 3, side, side, "cpu")
    before = synthetic.data.clone()
    synthetic.init(loader, "noise")
    assert torch.equal(synthetic.data, before)
    synthetic.init(loader, "random")
    for c in range(CLASSES):
        assert torch.equal(synthetic.data[2 * c : 2 * c + 2], items.images[of_class(items, c)[:2]])
    synthetic.init(loader, "mix")
    lengths = [len(part) for part in np.array_split(range(side), factor)]
    ends = np.cumsum([0, *lengths])
    for c in range(CLASSES):
        images = items.images[of_class(items, c)]
        for i in range(factor):
            for j in range(factor):
                k = 2 * (i * factor + j)
                part = synthetic.data[2 * c : 2 * c + 2, :, ends[i] : ends[i + 1], ends[j] : ends[j + 1]]
                assert torch.equal(part, F.interpolate(images[k : k + 2], size=(lengths[i], lengths[j])))
    assert synthetic.data.requires_grad
    with pytest.raises(ValueError, match="noise, random or mix, not 'kmean'"):
        synthetic.init(loader, "kmean")


def test_samples_of_a_class_are_its_decoded_images_drawn_without_replacement():
    synthetic = ours.Synthesizer(settings(ipc=5, factor=2), CLASSES, 3, 8, 8, "cpu", rng="legacy")
    decoded = literal_zoom(synthetic.data[10:15], 2, 8)
    images, labels = synthetic.sample(2)
    check_decoded(images, decoded)
    assert torch.equal(labels, torch.full((20,), 2))
    np.random.seed(6)
    chosen = np.random.permutation(20)[:7]
    np.random.seed(6)
    images, labels = synthetic.sample(2, 7)
    check_decoded(images, decoded[chosen])
    (gradient,) = torch.autograd.grad(images.sum(), synthetic.data)
    assert gradient[10:15].abs().sum() > 0
    assert not gradient[:10].any()
    synthetic = ours.Synthesizer(settings(ipc=20, factor=1), CLASSES, 3, 8, 8, "cpu", rng="fast")
    state = np.random.get_state()[1].copy()
    images, _ = synthetic.sample(1, 12)
    numbers = [int((synthetic.data.flatten(1) == image.flatten()).all(1).nonzero()) for image in images]
    assert len(set(numbers)) == 12
    assert set(numbers) <= set(range(20, 40))
    assert (np.random.get_state()[1] == state).all()


def test_the_loader_of_a_synthetic_set():
    synthetic = ours.Synthesizer(settings(ipc=3, factor=2), CLASSES, 3, 8, 8, "cpu")
    mean, std = (torch.tensor(values["cifar10"]).view(1, 3, 1, 1) for values in (ours.MEANS, ours.STDS))
    decoded = torch.cat([literal_zoom(synthetic.data[3 * c : 3 * c + 3], 2, 8) for c in range(CLASSES)]).detach()
    loader = synthetic.loader(settings(), augment=False)
    batches = list(loader)
    assert [len(labels) for _, labels in batches] == [8] * 6
    images, labels = (torch.cat(parts) for parts in zip(*batches, strict=True))
    distances = (((decoded - mean) / std)[None] - images[:, None]).abs().amax((2, 3, 4))
    assert distances.amin(1).max() < 1e-5
    order = distances.argmin(1).tolist()
    assert sorted(order) == list(range(48))
    assert torch.equal(labels, torch.tensor(order) // 12)
    images = torch.cat([images for images, _ in synthetic.loader(settings(), True, transform=lambda x: x * 0 + 2)])
    assert (images == 2).all()
    with pytest.raises(ValueError, match="transform of your own"):
        synthetic.loader(settings())


def test_a_synthetic_set_is_tested_on_a_resnet_too_if_it_has_colours(monkeypatch):
    calls = []
    monkeypatch.setattr(
        synthesizer,
        "test_data",
        lambda args, loader, val_loader, test_resnet, **_: calls.append((len(loader), test_resnet)),
    )
    synthetic = ours.Synthesizer(settings(ipc=2), CLASSES, 3, 8, 8, "cpu")
    args = settings(augment=False)
    synthetic.test(args, [], print)
    synthetic.test(args, [], print, bench=False)
    assert calls == [(4, False), (4, True), (4, False)]
    synthetic = ours.Synthesizer(settings(ipc=2), CLASSES, 1, 8, 8, "cpu")
    synthetic.test(settings(augment=False, dataset="mnist"), [], print)
    assert calls[3:] == [(4, False)]


def test_log_and_stamps(tmp_path, capsys):
    logger = ours.Logger(tmp_path)
    logger("a")
    logger("b", end="")
    logger("hidden", print_=False)
    assert (tmp_path / "log.txt").read_text() == "a\nb "
    assert capsys.readouterr().out == "a\nb"
    stamps = ours.TimeStamp()
    stamps.stamp("data")
    stamps.stamp("data")
    stamps.flush()
    assert re.match(r"data: 0\.\d{4}s \(avg .*count 2\)", capsys.readouterr().out)
    stamps.flush()
    assert capsys.readouterr().out == ""


@pytest.fixture
def published(upstream, monkeypatch):
    """condense.py and data.py of a checkout, which name a GPU in many places."""
    folder, _ = upstream("idc")
    make = torch.tensor
    monkeypatch.setattr(torch, "tensor", lambda *args, device=None, **keywords: make(*args, **keywords))
    monkeypatch.setattr(torch.Tensor, "cuda", lambda self: self)
    return checkout.modules(folder, ["condense", "data"])


def test_upstream_loaders(published):
    items = Items()
    for kind in LOADERS:
        theirs, state = getattr(published[1], kind.__name__), []
        batches = []
        for other in (theirs, kind):
            torch.manual_seed(3)
            loader = make_loader(kind, items, rng="legacy") if other is kind else None
            if loader is None:
                keywords = {"shuffle": True, "drop_last": True} if kind is ours.ClassDataLoader else {"device": "cpu"}
                loader = theirs(items, batch_size=16, **keywords)
            of_classes = [loader.class_sample(c) for _ in range(4) for c in range(CLASSES)]
            batches.append([*of_classes, *(loader.sample() for _ in range(4)), *loader])
            state.append(torch.get_rng_state())
        for (expected, _), (got, labels) in zip(*batches, strict=True):
            assert torch.equal(got, expected)
            assert len(labels) == len(got)
        assert torch.equal(*state)


@pytest.mark.parametrize("decode_type", ["single", "multi", "bound"])
@pytest.mark.parametrize("factor", [1, 2, 3])
def test_upstream_synthesizer(published, factor, decode_type):
    args = settings(factor=factor, decode_type=decode_type, ipc=2)
    loader = ours.ClassMemDataLoader(Items(), 16, device="cpu")
    results = []
    for kind, keywords in ((published[0].Synthesizer, {}), (ours.Synthesizer, {"rng": "legacy"})):
        torch.manual_seed(1)
        synthetic = kind(args, CLASSES, 3, 8, 8, device="cpu", **keywords)
        result = [synthetic.data.detach().clone(), synthetic.targets]
        for init in ("random", "mix"):
            synthetic.init(loader, init)
            result.append(synthetic.data.detach().clone())
        np.random.seed(2)
        for size in (128, 5):
            images, labels = synthetic.sample(1, size)
            (gradient,) = torch.autograd.grad(images.square().sum(), synthetic.data)
            result += [images.detach(), labels, gradient]
        results.append(result)
    for expected, got in zip(*results, strict=True):
        # Of gradients, which reach 9, the same is 1e-6 of that: decoding is another order of the same operations.
        largest = max(1.0, expected.abs().max().item())
        torch.testing.assert_close(got, expected, rtol=0, atol=1e-6 * largest)


@pytest.mark.parametrize("metric", ["mse", "l1", "l1_mean", "cos"])
def test_upstream_matchloss(published, metric):
    net, real, synthetic, *labels = matched()
    for match, bias, fc in (("feat", 0, 0), ("grad", 0, 0), ("grad", 1, 0), ("grad", 0, 1)):
        args = SimpleNamespace(match=match, metric=metric, bias=bias, fc=fc, idx_from=0, idx_to=2)
        losses = [code.matchloss(args, real, synthetic, *labels, net) for code in (ours, published[0])]
        torch.testing.assert_close(*losses, rtol=1e-12, atol=0)
        torch.testing.assert_close(*(torch.autograd.grad(loss, synthetic)[0] for loss in losses), rtol=0, atol=1e-12)
    assert published[1].MEANS == ours.MEANS
    assert published[1].STDS == ours.STDS
    assert published[0].remove_aug("a_b_c", "b_d") == ours.remove_aug("a_b_c", "b_d") == "a_c"
