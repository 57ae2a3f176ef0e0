"""Files of arrays that LfF's and Biased-DD's scripts save: written of our own builders' pixels, read back, damaged."""

import numpy as np
import pytest
import torch

from fastdd.data import load, published_counts
from fastdd.data.files.statistics import channel_statistics
from fastdd.data.sets import corruptions


def lff_files(folder, data):
    for name, split in (("train", data.train), ("valid", data.test)):
        (folder / name).mkdir(parents=True)
        np.save(folder / name / "images.npy", split.images.transpose(0, 2, 3, 1))
        np.save(folder / name / "attrs.npy", np.stack([split.labels, split.groups], 1).astype(np.uint8))
        (folder / name / "attr_names.pkl").write_bytes(b"not to be read")


def same(read, data):
    for name in ("train", "test"):
        for array in ("images", "labels", "groups"):
            np.testing.assert_array_equal(getattr(getattr(read, name), array), getattr(getattr(data, name), array))
    for field in ("class_names", "group_names", "mean", "std"):
        assert getattr(read, field) == getattr(data, field)


def test_lffs_arrays_are_read_back(mnist_root, cifar_root, tmp_path):
    for name, root, folder in (
        ("cmnist-lff", mnist_root, "ColoredMNIST-Skewed0.05-Severity4"),
        ("corrupted-cifar10", cifar_root, "CorruptedCIFAR10-Type1-Skewed0.05-Severity4"),
    ):
        options = {"corruption_type": 1} if "cifar" in name else {}
        data = load(name, root, **options)
        lff_files(tmp_path / name / folder, data)
        same(load("lff", tmp_path / name / folder), data)
        # The folder that holds it will do.
        assert load("lff", tmp_path / name).digest() == data.digest()
    held = load("lff", tmp_path / name, validation=0.2)
    assert held.validation is not None


def test_a_set_by_another_name_goes_by_numbers(mnist_root, tmp_path):
    data = load("cmnist-lff", mnist_root)
    lff_files(tmp_path / "mine", data)
    read = load("lff", tmp_path / "mine")
    assert read.class_names == tuple("0123456789")
    assert read.group_names[:2] == ("group 0", "group 1")
    assert (read.mean, read.std) == channel_statistics(data.train.images)


def test_of_several_sets_none_is_chosen(mnist_root, tmp_path):
    data = load("cmnist-lff", mnist_root)
    for name in ("ColoredMNIST-Skewed0.05-Severity4", "ColoredMNIST-Skewed0.01-Severity4"):
        lff_files(tmp_path / "sets" / name, data)
    with pytest.raises(
        ValueError, match=r"holds 2 sets \(ColoredMNIST-Skewed0\.01-Severity4, .*give the folder of one"
    ):
        load("lff", tmp_path / "sets")


def test_lffs_arrays_that_do_not_fit(mnist_root, tmp_path):
    lff_files(tmp_path / "set", load("cmnist-lff", mnist_root))
    attrs, images = (np.load(tmp_path / f"set/train/{name}.npy") for name in ("attrs", "images"))
    file = tmp_path / "set/train/attrs.npy"
    for changed, error, why in (
        (
            attrs[:-1],
            RuntimeError,
            rf"attrs\.npy must be whole numbers \[{len(attrs)}, 2\], class and group, not uint8",
        ),
        (attrs / 2, RuntimeError, r"class and group, not float64"),
        (np.array([None] * len(attrs)), RuntimeError, r"train/attrs\.npy is not a \.npy file of numbers"),
        (attrs.astype(np.int16) - 1, ValueError, r"labels must be numbered from 0 on, and there is -1"),
        (attrs.astype(np.int64) * 10**6, ValueError, r"labels must be numbered from 0 on, and there is 9000000"),
    ):
        np.save(file, changed, allow_pickle=True)
        with pytest.raises(error, match=why):
            load("lff", tmp_path / "set")
    file.unlink()
    with pytest.raises(FileNotFoundError, match=r"LfF's files: .*attrs\.npy is missing"):
        load("lff", tmp_path / "set")
    np.save(file, attrs)
    np.save(tmp_path / "set/valid/images.npy", images.transpose(0, 3, 1, 2))
    with pytest.raises(
        RuntimeError, match=r"valid/images\.npy must be uint8 \[N, H, W, 3\], not uint8 \[\d+, 3, 28, 28\]"
    ):
        load("lff", tmp_path / "set")
    with pytest.raises(FileNotFoundError, match=r"LfF's files: train/images\.npy, .* not found in"):
        load("lff", tmp_path / "set/valid")
    with pytest.raises(FileNotFoundError, match="LfF's files needs its files: give the folder"):
        load("lff")


def dd_tensors(data):
    tensors = {}
    for name, split in (("training", data.train), ("testing", data.test)):
        tensors[f"{name}_imgs"] = torch.from_numpy(split.images).float() / 255
        tensors[f"{name}_labs"] = torch.from_numpy(split.labels)
        tensors[f"{name}_attrs"] = torch.from_numpy(split.groups)
    return tensors


def test_biased_dds_tensors_are_read_back(mnist_root, cifar_root, tmp_path):
    data = load("cmnist-dd", mnist_root, bias_ratio=0.8, severity=2)
    torch.save(dd_tensors(data), tmp_path / "MNIST_align0.8_severity_2.pth")
    same(load("biased-dd", tmp_path, bias_ratio=0.8, severity=2), data)
    # Of the published names, and of older torch's files.
    data = load("ccifar10-dd", cifar_root, bias_ratio=1.0)
    (tmp_path / "CCIFAR10-DD").mkdir()
    file = tmp_path / "CCIFAR10-DD/CIFAR10_align1.0_severity_4.pth"
    torch.save(dd_tensors(data), file, _use_new_zipfile_serialization=False)
    read = load("biased-dd", tmp_path, kind="cifar10", bias_ratio=1)
    same(read, data)
    assert read.group_names == tuple(corruptions.TYPES[0])
    assert "remarks" not in read.provenance
    assert published_counts("biased-dd", {}) == (60_000, 10_000)
    assert published_counts("biased-dd", {"kind": "cifar10"}) is None


def test_another_bias_than_the_files_name_is_told(mnist_root, tmp_path):
    data = load("cmnist-dd", mnist_root, bias_ratio=0.5)
    torch.save(dd_tensors(data), tmp_path / "MNIST_align0.95_severity_4.pth")
    aligned = (data.train.labels == data.train.groups).mean()
    remark = f"{aligned:.1%} of the training images are aligned, not 95.0%"
    assert load("biased-dd", tmp_path).provenance["remarks"] == [remark]


class Runs:
    def __reduce__(self):
        return print, ("ran",)


def test_biased_dds_tensors_that_do_not_fit(mnist_root, tmp_path, capsys):
    good = dd_tensors(load("cmnist-dd", mnist_root))
    file = tmp_path / "MNIST_align0.95_severity_4.pth"
    count = len(good["training_labs"])
    for changed, why in (
        ([good], r"has no tensor training_imgs: it is not one of Biased-DD's files"),
        (good | {"testing_labs": None}, r"has no tensor testing_labs"),
        (good | {"training_imgs": good["training_imgs"] / 2}, r"training_imgs must be of 0\.\.1 in steps of 1/255"),
        (good | {"training_imgs": good["training_imgs"] * float("nan")}, r"training_imgs must be of 0\.\.1 in steps"),
        (good | {"testing_imgs": good["testing_imgs"] + 1}, r"testing_imgs must be of 0\.\.1 in steps"),
        (
            good | {"training_imgs": good["training_imgs"][:, :1]},
            r"training_imgs must be of floating point \[N, 3, H, W\]",
        ),
        (
            good | {"training_labs": good["training_labs"] + 1},
            rf"training_labs must be whole numbers .*\[{count}\].* to 10",
        ),
        (
            good | {"training_attrs": good["training_attrs"].float()},
            r"training_attrs must be whole numbers .*not torch\.f",
        ),
        (good | {"testing_labs": good["testing_labs"].to_sparse()}, r"has no tensor testing_labs"),
        (
            good | {"training_imgs": torch.zeros(1).expand(2**20, 3, 28, 28)},
            r"training_imgs would unpack to 2,466,250,752 bytes or more from [\d,]+, over 100 times as many",
        ),
        (good | {"more": Runs()}, r"is no file of tensors only, or is damaged: "),
    ):
        torch.save(changed, file)
        with pytest.raises(RuntimeError, match=why) as told:
            load("biased-dd", tmp_path)
        assert "\n" not in str(told.value)
    assert capsys.readouterr().out == ""
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(RuntimeError, match="is no file of tensors only, or is damaged"):
        load("biased-dd", tmp_path)
    for options, why in (
        ({"kind": "svhn"}, "kind of biased-dd must be mnist or cifar10, not 'svhn'"),
        ({"severity": 5}, "severity must be 1, 2, 3 or 4, not 5"),
        ({"bias_ratio": 1.5}, "bias_ratio must lie in 0..1, not 1.5"),
    ):
        with pytest.raises(ValueError, match=why):
            load("biased-dd", tmp_path, **options)
    with pytest.raises(
        FileNotFoundError, match=r"MNIST_align0\.0_severity_4\.pth not found in .*CMNIST-DD; offered at"
    ):
        load("biased-dd", tmp_path, bias_ratio=0)
