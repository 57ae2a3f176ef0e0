"""Where torchvision is missing, what scripts use of it gives torchvision's values, from files in its layout."""

import gzip
import importlib
import importlib.util
import pickle
import struct
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from fastdd.compat.hook import substitutes
from fastdd.compat.hook.torchvision_substitute import datasets, transforms, utils

ours_is_used = pytest.mark.skipif(
    importlib.util.find_spec("torchvision") is not None, reason="torchvision is installed, and wins"
)


@pytest.fixture
def installed(monkeypatch):
    """The substitutes, for this test only."""
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))
    before, of_numpy = set(sys.modules), set(vars(np))
    substitutes.install()
    substitutes.install()  # twice is once
    yield
    for name in set(vars(np)).intersection(substitutes._NUMPY) - of_numpy:
        delattr(np, name)
    for name in set(sys.modules) - before:
        if name.partition(".")[0] == "torchvision" or name == "scipy.ndimage.interpolation":
            del sys.modules[name]


def tiles(images, nrow, padding, pad_value):
    """The grid, tile by tile."""
    rows, height, width = -(-len(images) // nrow), images.shape[2] + padding, images.shape[3] + padding
    grid = torch.full((images.shape[1], rows * height + padding, nrow * width + padding), pad_value)
    for k, image in enumerate(images):
        top, left = k // nrow * height + padding, k % nrow * width + padding
        grid[:, top : top + images.shape[2], left : left + images.shape[3]] = image
    return grid


@pytest.mark.parametrize(("count", "nrow", "padding", "pad_value"), [(7, 3, 2, 0.0), (4, 8, 1, 0.5), (6, 2, 0, 0.0)])
def test_grids_are_tiles_in_order(count, nrow, padding, pad_value):
    images = torch.rand(count, 3, 5, 4)
    grid = utils.make_grid(images, nrow=nrow, padding=padding, pad_value=pad_value)
    assert torch.equal(grid, tiles(images, min(nrow, count), padding, pad_value))


def test_gray_images_get_three_channels_and_one_image_no_border():
    gray = torch.rand(4, 1, 5, 5)
    assert torch.equal(utils.make_grid(gray), utils.make_grid(gray.repeat(1, 3, 1, 1)))
    assert torch.equal(utils.make_grid(gray[:1]), gray[0].repeat(3, 1, 1))
    assert torch.equal(utils.make_grid(list(gray)), utils.make_grid(gray))
    with pytest.raises(ValueError, match="2 to 4 dimensions"):
        utils.make_grid(torch.rand(5))


def test_normalised_grids_stretch_all_images_or_each():
    images = torch.stack([torch.linspace(-1, 1, 12).view(3, 2, 2), torch.linspace(0, 3, 12).view(3, 2, 2)])
    kept = images.clone()
    together = utils.make_grid(images, padding=0, normalize=True)
    torch.testing.assert_close(together, torch.cat(list((kept + 1) / 4), dim=2))
    each = utils.make_grid(images, padding=0, normalize=True, scale_each=True)
    torch.testing.assert_close(each, torch.cat([(kept[0] + 1) / 2, kept[1] / 3], dim=2))
    clipped = utils.make_grid(images, padding=0, normalize=True, value_range=(0, 1))
    torch.testing.assert_close(clipped, torch.cat(list(kept.clamp(0, 1)), dim=2))
    assert torch.equal(images, kept)


def test_saved_images_are_rounded_to_bytes(tmp_path):
    images = torch.tensor([0.0, 0.001, 0.5, 0.9999, 1.0, 2.0]).view(1, 1, 2, 3)
    utils.save_image(images, tmp_path / "a.png")
    expected = np.floor(np.clip(images[0, 0].numpy() * 255 + 0.5, 0, 255)).astype(np.uint8)
    assert np.array_equal(np.array(Image.open(tmp_path / "a.png")), np.repeat(expected[..., None], 3, axis=2))


def test_tensors_of_images_are_bytes_over_255_normalised_by_channel():
    pixels = np.random.default_rng(0).integers(0, 256, (6, 5, 3), dtype=np.uint8)
    tensor = transforms.ToTensor()(Image.fromarray(pixels))
    assert torch.equal(tensor, torch.from_numpy(pixels.transpose(2, 0, 1).astype(np.float32)) / 255)
    assert torch.equal(tensor, transforms.ToTensor()(pixels))
    mean, std = [0.4914, 0.4822, 0.4465], [0.2023, 0.1994, 0.2010]
    both = transforms.Compose([transforms.ToTensor(), transforms.Normalize(mean=mean, std=std)])(pixels)
    for channel in range(3):
        expected = (tensor[channel] - torch.tensor(mean[channel])) / torch.tensor(std[channel])
        assert torch.equal(both[channel], expected)
    assert transforms.ToTensor()(Image.fromarray(pixels[..., 0])).shape == (1, 6, 5)
    with pytest.raises(ValueError, match="has a zero"):
        transforms.Normalize([0.0], [0.0])(tensor)


def test_resizing_keeps_the_shape_of_images_unless_told():
    image = Image.new("RGB", (40, 30))
    assert transforms.Resize(15)(image).size == (20, 15)
    assert transforms.Resize((10, 12))(image).size == (12, 10)
    assert transforms.Resize(30)(image) is image
    with pytest.raises(ImportError, match="Resize of a Tensor needs torchvision, which is not installed"):
        transforms.Resize(8)(torch.rand(3, 9, 9))


def test_crops_are_in_the_middle_padded_with_black():
    pixels = np.arange(1, 31, dtype=np.uint8).reshape(5, 6)
    assert np.array_equal(np.array(transforms.CenterCrop((3, 2))(Image.fromarray(pixels))), pixels[1:4, 2:4])
    wide = np.array(transforms.CenterCrop(8)(Image.fromarray(pixels)))
    assert np.array_equal(wide[1:6, 1:7], pixels)
    assert wide.sum() == pixels.sum()


def write_idx(path, array):
    header = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    path.write_bytes(gzip.compress(header + array.tobytes()))


@pytest.mark.parametrize("name", ["MNIST", "FashionMNIST"])
def test_mnist_in_its_layout(tmp_path, name):
    rng, raw = np.random.default_rng(0), tmp_path / name / "raw"
    raw.mkdir(parents=True)
    arrays = {}
    for stem, count in (("train", 6), ("t10k", 4)):
        arrays[stem] = rng.integers(0, 256, (count, 28, 28), dtype=np.uint8), np.arange(count, dtype=np.uint8)
        write_idx(raw / f"{stem}-images-idx3-ubyte.gz", arrays[stem][0])
        write_idx(raw / f"{stem}-labels-idx1-ubyte.gz", arrays[stem][1])
    transform = transforms.ToTensor()
    for train, stem in ((True, "train"), (False, "t10k")):
        data = getattr(datasets, name)(str(tmp_path), train=train, transform=transform, download=True)
        pixels, labels = arrays[stem]
        assert (len(data), data.train, data.transform) == (len(pixels), train, transform)
        assert np.array_equal(data.data.numpy(), pixels)
        assert data.data.dtype == torch.uint8
        assert data.targets.tolist() == labels.tolist()
        image, label = data[3]
        assert (label, type(label)) == (3, int)
        assert torch.equal(image[0], torch.from_numpy(pixels[3]) / 255)
    assert (data.raw_folder, len(data.classes)) == (str(raw), 10)
    assert data.class_to_idx[data.classes[2]] == 2


def test_mnist_elsewhere_in_classes_that_say_so(tmp_path):
    class Biased(datasets.MNIST):
        @property
        def raw_folder(self):
            return f"{self.root}/raw"

    with pytest.raises(RuntimeError, match=r"Biased: torchvision is not installed, .* IDX files into .*/raw \("):
        Biased(str(tmp_path), download=True)
    with pytest.raises(RuntimeError, match=r"Biased: files are missing; put its four IDX files into"):
        Biased(str(tmp_path))


def write_batch(path, **fields):
    path.write_bytes(pickle.dumps(fields, protocol=2))


def test_cifar_in_its_layout(tmp_path):
    rng, folder = np.random.default_rng(0), tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    for name in (*(f"data_batch_{k}" for k in range(1, 6)), "test_batch"):
        write_batch(folder / name, data=rng.integers(0, 256, (2, 3072), dtype=np.uint8), labels=[3, 9])
    data = datasets.CIFAR10(str(tmp_path), train=True, download=True)
    first = pickle.loads((folder / "data_batch_1").read_bytes())["data"]
    assert (data.data.shape, data.targets) == ((10, 32, 32, 3), [3, 9] * 5)
    assert np.array_equal(np.array(data[0][0]), first[0].reshape(3, 32, 32).transpose(1, 2, 0))
    assert (data.classes[3], data.class_to_idx["truck"]) == ("cat", 9)
    assert len(datasets.CIFAR10(str(tmp_path), train=False)) == 2
    with pytest.raises(RuntimeError, match=r"CIFAR10: .*downloads nothing; put the Python version"):
        datasets.CIFAR10(str(tmp_path / "no"), download=True)


def test_cifar100_by_fine_labels(tmp_path):
    folder = tmp_path / "cifar-100-python"
    folder.mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (2, 3072), dtype=np.uint8)
    for split in ("train", "test"):
        write_batch(folder / split, data=pixels, fine_labels=[99, 4], coarse_labels=[1, 1])
    write_batch(folder / "meta", fine_label_names=[f"class {k}" for k in range(100)])
    data = datasets.CIFAR100(str(tmp_path))
    assert (data.targets, data.classes[99], data.data.shape) == ([99, 4], "class 99", (2, 32, 32, 3))


def test_svhn_and_folders(tmp_path):
    import scipy.io

    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3, 2), dtype=np.uint8)
    for split in ("train", "test"):
        scipy.io.savemat(tmp_path / f"{split}_32x32.mat", {"X": pixels, "y": np.array([[10], [3]])})
    data = datasets.SVHN(str(tmp_path), split="test")
    assert (data.data.shape, data.labels.tolist()) == ((2, 3, 32, 32), [0, 3])
    assert np.array_equal(np.array(data[1][0]), pixels[..., 1])
    with pytest.raises(ValueError, match="split must be"):
        datasets.SVHN(str(tmp_path), split="extra")

    for name in ("b", "a"):
        (tmp_path / "images" / name / "images").mkdir(parents=True)
        Image.new("L", (3, 2), 7).save(tmp_path / "images" / name / "images" / "1.png")
        (tmp_path / "images" / name / "notes.txt").write_text("")
    data = datasets.ImageFolder(str(tmp_path / "images"), transform=transforms.ToTensor())
    assert (data.classes, data.targets, data.imgs is data.samples) == (["a", "b"], [0, 1], True)
    assert data[1][0].shape == (3, 2, 3)
    (tmp_path / "images" / "c").mkdir()
    with pytest.raises(FileNotFoundError, match="has no images of c"):
        datasets.ImageFolder(str(tmp_path / "images"))


@ours_is_used
def test_imports_find_the_substitute_and_missing_names_say_so_when_used(installed, tmp_path):
    from torchvision import models
    from torchvision import transforms as imported
    from torchvision.datasets.mnist import FashionMNIST
    from torchvision.datasets.utils import check_integrity, download_url
    from torchvision.transforms.functional import rotate
    from torchvision.utils import save_image

    assert imported is transforms
    assert FashionMNIST is datasets.FashionMNIST
    assert save_image is utils.save_image
    (tmp_path / "x").write_bytes(b"abc")
    assert check_integrity(str(tmp_path / "x"), "900150983cd24fb0d6963f7d28e17f72")
    assert not check_integrity(str(tmp_path / "x"), "0" * 32)
    assert not check_integrity(str(tmp_path / "y"))
    for use, name in (
        (lambda: imported.ColorJitter(0.1), "transforms.ColorJitter"),
        (lambda: datasets.ImageNet("data"), "datasets.ImageNet"),
        (lambda: download_url("https://"), "datasets.utils.download_url"),
        (lambda: models.resnet18(), "models.resnet18"),
        (lambda: rotate(None, 3), "transforms.functional.rotate"),
    ):
        with pytest.raises(ImportError, match=f"^{name} needs torchvision, which is not installed$"):
            use()
    assert substitutes.in_use() == ["torchvision"]


def test_a_module_that_scipy_gave_up_is_found(installed, monkeypatch):
    namespace = importlib.import_module("scipy.ndimage")
    sys.modules.pop("scipy.ndimage.interpolation", None)
    monkeypatch.setattr(sys, "meta_path", [finder for finder in sys.meta_path if "Last" in type(finder).__name__])
    from scipy.ndimage.interpolation import rotate

    assert rotate is namespace.rotate


@ours_is_used
def test_names_that_numpy_gave_up_are_pythons_types(installed):
    names = vars(np)
    assert names["int"](2.7) == 2
    assert (names["float"], names["object"]) == (float, object)
    assert np.zeros(2, dtype=names["int"]).dtype == np.dtype(int)


def test_nothing_else_is_found(installed):
    for name in ("torchaudio", "wandb.sdk", "torchvisionary"):
        with pytest.raises(ModuleNotFoundError):
            importlib.import_module(name)
