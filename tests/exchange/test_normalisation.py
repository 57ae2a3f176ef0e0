"""What images are normalised with."""

import pytest
import torch

import fastdd
from fastdd import exchange
from fastdd.data import load
from fastdd.exchange import published
from tests.exchange.samples import classes, images, read_mnist, refused


def test_normalisation_is_asked_for_with_what_the_name_suggests(result, tmp_path):
    with refused(ValueError, "--dataset NAME, or --mean and --std", "looks like --dataset mnist"):
        fastdd.import_synthetic(result())
    with refused(ValueError, "looks like --dataset c-mnist-bg"):
        fastdd.import_synthetic(result(name="res_DC_Colored_MNIST_background_ConvNet_1ipc.pt"))
    with refused(ValueError, "looks like --dataset svhn"):
        fastdd.import_synthetic(result(name="res_DC_SVHN_ConvNet_1ipc.pt"))
    with refused(ValueError, "or --mean and --std"):
        fastdd.import_synthetic(result(name="mine.pt"))
    (tmp_path / "fashion" / "tag").mkdir(parents=True)
    torch.save([torch.rand(4, 1, 8, 8), torch.tensor([0, 0, 1, 1])], tmp_path / "fashion" / "tag" / "data.pt")
    with refused(ValueError, "hold pixels", "looks like --dataset fashion-mnist"):
        fastdd.import_synthetic(tmp_path / "fashion" / "tag")


def test_normalisation_by_hand(result):
    read = fastdd.import_synthetic(result(), mean=[0.5], std=[0.25])
    assert (read.metadata["mean"], read.metadata["std"]) == ([0.5], [0.25])
    assert torch.equal(read.images, images())
    assert read.metadata["class_names"] == list("0123456789")
    assert "dataset" not in read.metadata
    both = read_mnist(result(), mean=[0.5], std=[0.25])
    assert (both.metadata["mean"], both.metadata["dataset"]) == ([0.5], "mnist")
    with refused(ValueError, "go together"):
        fastdd.import_synthetic(result(), mean=[0.5])


def test_a_data_set_that_published_code_does_not_have_says_its_own(result, c_digits):
    path = result([[images(20, (3, 16, 16)), classes()]])
    for dataset in ("c-digits", c_digits):
        read = fastdd.import_synthetic(
            path, dataset=dataset, data_options={"bias_ratio": 0.5} if dataset == "c-digits" else None
        )
        assert (read.metadata["mean"], read.metadata["dataset"]) == ([0.5] * 3, "c-digits")
    read = fastdd.import_synthetic(path, dataset="c-digits", data_options={"bias_ratio": 0.5})
    assert read.metadata["provenance"]["parameters"]["bias_ratio"] == 0.5
    with refused(ValueError, "c-digits has no colour"):
        fastdd.import_synthetic(path, dataset="c-digits", data_options={"colour": 1})
    with refused(ValueError, "unknown data set 'mnits'; did you mean mnist"):
        fastdd.import_synthetic(path, dataset="mnits")
    with refused(FileNotFoundError, "root"):
        fastdd.import_synthetic(path, dataset="cmnist-lff")


def test_options_of_a_data_set_are_kept_for_the_evaluation(result):
    path = result([[images(20, (3, 32, 32)), classes()]])
    read = fastdd.import_synthetic(path, dataset="c-mnist-fg", debias="fairdd", data_options={"bias_ratio": 0.95})
    assert read.metadata["provenance"] == {"parameters": {"bias_ratio": 0.95}}
    assert read.metadata["debias"] == "fairdd"


@pytest.mark.parametrize("name", ["mnist", "fashion-mnist", "c-mnist-fg", "c-mnist-bg", "c-fmnist-fg", "c-fmnist-bg"])
def test_published_normalisation_is_that_of_the_data_sets(mnist_root, name):
    data, known = load(name, mnist_root), published.DATASETS[name]
    assert (data.mean, data.std, data.class_names) == (known.mean, known.std, known.class_names)


@pytest.mark.parametrize("name", ["cifar10", "cifar10-s"])
def test_published_normalisation_is_that_of_cifar10(cifar_root, name):
    data, known = load(name, cifar_root), published.DATASETS[name]
    assert (data.mean, data.std, data.class_names) == (known.mean, known.std, known.class_names)


def test_every_published_name_is_a_data_set():
    assert set(published.NAMES.values()) <= set(published.DATASETS) <= set(fastdd.data.available())


def test_formats_are_all_there():
    assert set(exchange.FORMATS) == {"dc", "mtt", "idc", "dcbench", "npz", "folder", "webdataset", "hf", "parquet"}


def test_mtt_and_idc_normalise_cifar_100_as_cifar_10():
    assert exchange.constants("cifar100", "dc").mean == (0.5071, 0.4866, 0.4409)
    assert exchange.constants("cifar100", "mtt").mean == exchange.constants("cifar10", "mtt").mean
    assert exchange.constants("cifar100", "idc").std == exchange.constants("cifar10", "idc").std
    assert exchange.constants("mine", "dc") is None
