"""The scripts' get_dataset: values as torchvision makes them, of the publishers' files in torchvision's folders."""

import pickle
import struct
from argparse import Namespace
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, RandomSampler

from fastdd import data
from fastdd.compat import fairdd, mtt
from fastdd.compat.dc.datasets import Pixels, TensorDataset, get_dataset
from fastdd.compat.mtt.subsets import imagenet_labels
from fastdd.data import Split

MEAN, STD = [0.4914, 0.4822, 0.4465], [0.2023, 0.1994, 0.2010]


def bytes_of(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def to_tensor_and_normalize(image: np.ndarray, mean, std) -> torch.Tensor:
    """torchvision's arithmetic: one rounding in float32 each."""
    tensor = torch.from_numpy(image).to(torch.float32).div(255)
    return (tensor - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]


def split(n: int, channels: int = 3, side: int = 4, classes: int = 5) -> Split:
    return Split(bytes_of(n, channels, side, side), np.arange(n) % classes, np.arange(n) // 2 % 2)


def pixels(n: int = 600, with_groups: bool = False) -> Pixels:
    return Pixels(split(n), MEAN, STD, "abcde", with_groups)


def write_mnist(folder, n: int = 60):
    folder.mkdir(parents=True)
    for stem, count in (("train", n), ("t10k", n // 2)):
        for kind, array in (
            ("images-idx3", bytes_of(count, 28, 28)),
            ("labels-idx1", (np.arange(count) % 10).astype(np.uint8)),
        ):
            header = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
            (folder / f"{stem}-{kind}-ubyte").write_bytes(header + array.tobytes())


def write_cifar(folder, names, count: int = 20, labels: str = "labels", classes: int = 10):
    folder.mkdir(parents=True)
    for number, name in enumerate(names):
        fields = {"data": bytes_of(count, 3072, seed=number), labels: (np.arange(count) % classes).tolist()}
        (folder / name).write_bytes(pickle.dumps({k.encode(): v for k, v in fields.items()}, protocol=2))


CIFAR10_NAMES = [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]


def test_items_have_torchvisions_bits_in_any_order():
    dataset, raw = pixels(), split(600)
    order = [*range(600), 599, 3, 4, 5, 300, -1, 0, 1, 2]
    for i in order:
        image, label = dataset[i]
        assert torch.equal(image, to_tensor_and_normalize(raw.images[i], MEAN, STD))
        assert type(label) is int
        assert label == raw.labels[i]
    assert torch.equal(dataset.images, torch.stack([dataset[i][0] for i in range(600)]))
    assert dataset.labels.tolist() == dataset.targets == raw.labels.tolist()
    assert (len(dataset), dataset.classes) == (600, [*"abcde"])


def test_an_item_is_the_callers_own():
    dataset = pixels()
    for i in (0, 1, 2):
        dataset[i][0].zero_()
        assert dataset[i][0].any()


def test_the_end_of_a_data_set_ends_a_loop():
    assert len([*pixels(7)]) == 7
    for index in (7, -8):
        with pytest.raises(IndexError, match=f"item {index} of 7"):
            pixels(7)[index]


@pytest.mark.parametrize("with_groups", [False, True])
def test_a_loader_collates_items(with_groups):
    dataset = pixels(11, with_groups)
    found = [torch.cat(column) for column in zip(*DataLoader(dataset, batch_size=4), strict=True)]
    expected = torch.utils.data.default_collate([dataset[i] for i in range(11)])
    assert len(found) == len(expected) == (3 if with_groups else 2)
    for a, b in zip(found, expected, strict=True):
        assert torch.equal(a, b)
        assert a.dtype == b.dtype


def test_mnist_where_torchvision_puts_it(tmp_path):
    write_mnist(tmp_path / "MNIST" / "raw")
    channel, im_size, classes, names, mean, std, train, test, loader = get_dataset("MNIST", str(tmp_path))
    assert (channel, im_size, classes, names) == (1, (28, 28), 10, [str(digit) for digit in range(10)])
    assert (mean, std) == ([0.1307], [0.3081])
    assert (len(train), len(test), loader.batch_size, loader.num_workers) == (60, 30, 256, 0)
    assert torch.equal(train[0][0], to_tensor_and_normalize(bytes_of(60, 28, 28)[:1], mean, std))
    assert not isinstance(loader.sampler, RandomSampler)
    write_mnist(tmp_path / "FashionMNIST" / "raw")
    found = get_dataset("FashionMNIST", tmp_path)
    assert found[3] == found[6].classes
    assert (found[3][0], found[4], found[5]) == ("T-shirt/top", [0.2861], [0.3530])


def test_cifar_where_torchvision_puts_it(tmp_path):
    write_cifar(tmp_path / "cifar-10-batches-py", CIFAR10_NAMES)
    found = get_dataset("CIFAR10", tmp_path)
    assert found[:6] == (3, (32, 32), 10, found[6].classes, MEAN, STD)
    assert found[3][:2] == ["airplane", "automobile"]
    assert (len(found[6]), len(found[7])) == (100, 20)
    write_cifar(tmp_path / "cifar-100-python", ["train", "test"], 120, "fine_labels", 100)
    names = [f"class {i}" for i in range(100)]
    (tmp_path / "cifar-100-python" / "meta").write_bytes(pickle.dumps({"fine_label_names": names}, protocol=2))
    found = get_dataset("CIFAR100", tmp_path)
    assert found[:6] == (3, (32, 32), 100, names, [0.5071, 0.4866, 0.4409], [0.2673, 0.2564, 0.2762])
    image = bytes_of(120, 3072).reshape(120, 3, 32, 32)[7]
    assert torch.equal(found[6][7][0], to_tensor_and_normalize(image, found[4], found[5]))
    assert found[6][107][1] == 7


def test_mtts_cifar100_has_cifar10s_constants(tmp_path):
    write_cifar(tmp_path / "cifar-100-python", ["train", "test"], 120, "fine_labels", 100)
    (tmp_path / "cifar-100-python" / "meta").write_bytes(
        pickle.dumps({"fine_label_names": [str(i) for i in range(100)]}, protocol=2)
    )
    found = mtt.get_dataset("CIFAR100", tmp_path, args=Namespace(zca=False))
    assert found[4:6] == (MEAN, STD)
    image = bytes_of(120, 3072).reshape(120, 3, 32, 32)[7]
    assert torch.equal(found[6][7][0], to_tensor_and_normalize(image, MEAN, STD))


def test_svhn(tmp_path):
    from scipy.io import savemat

    for name, count in (("train", 30), ("test", 20)):
        images = bytes_of(32, 32, 3, count)
        savemat(tmp_path / f"{name}_32x32.mat", {"X": images, "y": (np.arange(count) % 10 + 1)[:, None]})
    found = get_dataset("SVHN", tmp_path)
    assert found[:4] == (3, (32, 32), 10, [str(digit) for digit in range(10)])
    assert found[4:6] == ([0.4377, 0.4438, 0.4728], [0.1980, 0.2010, 0.1970])
    image = bytes_of(32, 32, 3, 30)[..., 9].transpose(2, 0, 1).copy()
    assert torch.equal(found[6][9][0], to_tensor_and_normalize(image, found[4], found[5]))
    # The publisher's label of a zero is 10.
    assert [found[6][i][1] for i in range(12)] == [1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 1, 2]


def test_tiny_imagenet_of_dcs_own_file(tmp_path):
    content = {"classes": ["cat", "dog"]}
    for part, count in (("train", 6), ("val", 4)):
        content[f"images_{part}"] = torch.from_numpy(bytes_of(count, 3, 64, 64))
        content[f"labels_{part}"] = torch.arange(count) % 2
    torch.save(content, tmp_path / "tinyimagenet.pt")
    found = get_dataset("TinyImageNet", tmp_path)
    assert found[:6] == (3, (64, 64), 2, ["cat", "dog"], [0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    # As its script does, channel by channel.
    expected = torch.from_numpy(bytes_of(6, 3, 64, 64)).float() / 255.0
    for c in range(3):
        expected[:, c] = (expected[:, c] - found[4][c]) / found[5][c]
    assert torch.equal(found[6].images, expected)
    del content["classes"]
    torch.save(content, tmp_path / "tinyimagenet.pt")
    with pytest.raises(RuntimeError, match=r"tinyimagenet.pt has no classes"):
        get_dataset("TinyImageNet", tmp_path)


@pytest.mark.parametrize(
    ("published", "name", "names"),
    [
        ("CIFAR10_S_90", "cifar10-s", ["ss"]),
        ("Colored_MNIST_foreground", "c-mnist-fg", [str(digit) for digit in range(10)]),
        ("Colored_MNIST_background", "c-mnist-bg", [str(digit) for digit in range(10)]),
        ("Colored_FashionMNIST_foreground", "c-fmnist-fg", ["first", "second"]),
        ("Colored_FashionMNIST_background", "c-fmnist-bg", ["first", "second"]),
        ("UTKface", "utkface", ["0-19", "20-40", "40-"]),
        ("CelebA", "celeba", ["attractive", "no_attractive"]),
        ("BFFHQ", "bffhq", ["0", "1"]),
    ],
)
def test_fairdds_names(monkeypatch, published, name, names):
    asked = []

    def load(*given):
        asked.append(given)
        splits = split(8, classes=2), split(4, classes=2)
        return data.Dataset(name, *splits, ("first", "second"), ("a", "b"), (0.5,) * 3, (0.25,) * 3, {})

    monkeypatch.setattr(data, "load", load)
    found = fairdd.get_dataset(published, "there")
    assert asked == [(name, "there")]
    assert found[:6] == (3, (4, 4), 2, names, [0.5] * 3, [0.25] * 3)
    assert found[6][5][1:] == (1, 0)
    assert [len(column) for column in next(iter(found[8]))] == [4] * 3


def test_fairdds_coloured_digits_from_mnists_files(tmp_path):
    write_mnist(tmp_path / "MNIST" / "raw")
    state = torch.get_rng_state()
    found = fairdd.get_dataset("Colored_MNIST_foreground", tmp_path)
    assert found[:6] == (3, (32, 32), 10, [str(digit) for digit in range(10)], [0.5] * 3, [0.5] * 3)
    image, label, group = found[6][0]
    assert image.shape == (3, 32, 32)
    # Colours are made of 0, 128 and 255.
    assert set(image.unique().tolist()) <= {
        -1.0,
        1.0,
        to_tensor_and_normalize(bytes_of(1, 1, 1) * 0 + 128, [0.5], [0.5]).item(),
    }
    assert (type(label), type(group)) == (int, int)
    assert (len(found[6]), len(found[7])) == (60, 30)
    assert torch.equal(torch.get_rng_state(), state)


def test_mtts_subset_keeps_imagenets_numbers(monkeypatch):
    numbers = mtt.IMAGENET_NUMBERS["imagewoof"]

    def load(name, root):
        assert (name, root) == ("imagewoof", "there")
        names = tuple(str(i) for i in range(10))
        return data.Dataset(
            name, split(40, classes=10), split(20, classes=10), names, ("all", "b"), *[(0.5,) * 3] * 2, {}
        )

    monkeypatch.setattr(data, "load", load)
    found = mtt.get_dataset("ImageNet", "there", batch_size=2, subset="imagewoof", args=Namespace(zca=False))
    assert len(found) == 12
    *_, train, _, loader, loaders, class_map, class_map_inv = found
    assert found[3] is None
    assert found[4:6] == ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    assert loader.batch_size == 128
    assert [class_map[train[i][1]] for i in range(12)] == [*range(10), 0, 1]
    assert class_map_inv == {label: number for number, label in class_map.items()} == dict(enumerate(numbers))
    for label, own in loaders.items():
        images, drawn = next(iter(own))
        assert images.shape == (2, 3, 4, 4)
        assert drawn.tolist() == [numbers[label]] * 2
    labels = imagenet_labels("imagewoof")
    assert labels[torch.tensor(numbers)].tolist() == [*range(10)]
    assert (labels >= 0).sum() == 10
    with pytest.raises(ValueError, match="unknown ImageNet subset 'imagewolf'"):
        mtt.get_dataset("ImageNet", "there", subset="imagewolf")


def test_mtts_other_sets_have_no_loaders(monkeypatch):
    def load(name, root):
        return data.Dataset(name, split(8), split(4), tuple("abcde"), ("all", "b"), *[(0.5,) * 3] * 2, {})

    monkeypatch.setattr(data, "load", load)
    found = mtt.get_dataset("Tiny", "there", args=Namespace(zca=False))
    assert found[9:] == (None, {label: label for label in range(5)}, None)


def test_zca(tmp_path, monkeypatch):
    """Of the top left corners of CIFAR-10's images: 192 eigenvectors, where whole ones have 3,072."""

    def corners(values):
        return np.ascontiguousarray(values.reshape(-1, 3, 32, 32)[:, :, :8, :8])

    def load(name, root):
        whole = own(name, root)
        parts = {name: getattr(whole, name) for name in ("train", "test")}
        return replace(whole, **{n: replace(part, images=corners(part.images)) for n, part in parts.items()})

    own = data.load
    monkeypatch.setattr(data, "load", load)
    write_cifar(tmp_path / "cifar-10-batches-py", CIFAR10_NAMES, 8)
    args = Namespace(zca=True, device="cpu")
    *_, train, test, loader, _, _, _ = mtt.get_dataset("CIFAR10", tmp_path, args=args)
    assert type(train) is type(test) is TensorDataset
    raw = np.concatenate([corners(bytes_of(8, 3072, seed=number)) for number in range(5)]).reshape(40, -1)
    x = torch.from_numpy(raw).double() / 255
    centred = x - x.mean(0)
    values, vectors = torch.linalg.eigh(centred.T @ centred / (len(x) - 1))
    transform = vectors @ torch.diag((values.clamp(min=0) + 0.1) ** -0.5) @ vectors.T
    torch.testing.assert_close(train.images.flatten(1).double(), centred @ transform, rtol=0, atol=1e-4)
    tested = torch.from_numpy(corners(bytes_of(8, 3072, seed=5))).float() / 255
    torch.testing.assert_close(args.zca_trans(tested), test.images, rtol=0, atol=1e-4)
    torch.testing.assert_close(args.zca_trans.inverse_transform(test.images), tested, rtol=0, atol=1e-4)
    images, labels = next(iter(loader))
    assert torch.equal(images, test.images)
    assert labels.tolist() == [i % 10 for i in range(8)]


@pytest.mark.parametrize("function", [get_dataset, fairdd.get_dataset, mtt.get_dataset])
def test_an_unknown_name_ends_the_script_and_a_missing_file_is_named(function, tmp_path):
    with pytest.raises(SystemExit, match="unknown dataset: MNIST-7"):
        function("MNIST-7", tmp_path)
    name = {get_dataset: "SVHN", fairdd.get_dataset: "CIFAR10_S_90", mtt.get_dataset: "CIFAR100"}[function]
    with pytest.raises(FileNotFoundError, match="they are offered at http"):
        function(name, tmp_path)


@pytest.mark.realdata
@pytest.mark.parametrize("name", ["MNIST", "FashionMNIST", "CIFAR10"])
def test_real_pixels_have_the_constants_that_they_are_normalised_by(data_root, name):
    train = get_dataset(name, data_root)[6]
    images = train.images[:10000]
    assert images.mean().abs() < 0.02
    assert len(train) in (50000, 60000)


@pytest.mark.realdata
def test_the_tiny_imagenet_of_images(data_root):
    found = mtt.get_dataset("Tiny", data_root / "tiny_imagenet_20", args=Namespace(zca=False))
    assert found[1] == (64, 64)
    assert found[6][0][0].shape == (3, 64, 64)
