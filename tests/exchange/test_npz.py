"""numpy's archives."""

import numpy as np
import pytest
import torch

import fastdd
from tests.exchange.samples import MNIST, classes, images, made, read_mnist, refused


def test_an_archive_of_another_program(tmp_path):
    np.savez(tmp_path / "a.npz", images=images().numpy(), labels=classes().numpy())
    with refused(ValueError, "npz files don't say"):
        fastdd.import_synthetic(tmp_path / "a.npz")
    assert torch.equal(read_mnist(tmp_path / "a.npz").images, images())
    np.savez_compressed(tmp_path / "a.npz", images=images().numpy(), labels=classes().numpy(), **MNIST)
    assert fastdd.import_synthetic(tmp_path / "a.npz").metadata["mean"] == [0.1307]


def test_classes_and_soft_labels_of_an_archive_go_by_name(tmp_path):
    soft = np.array([[0.9, 0.1], [0.25, 0.75]], np.float32)
    arrays = {"images": images(2, (3, 4, 4)).numpy(), "labels": np.array([0, 1]), "class_names": ["truck", "bird"]}
    np.savez(tmp_path / "a.npz", **arrays, soft_labels=soft)
    read = fastdd.import_synthetic(tmp_path / "a.npz", dataset="cifar10")
    assert read.labels.tolist() == [9, 2]
    assert read.soft_labels.shape == (2, 10)
    assert read.soft_labels[:, [9, 2]].tolist() == soft.tolist()


def test_diagnostics_of_weights_are_not_those_of_a_data_sets_classes(tmp_path):
    kde = {"bandwidth": 0.1, "diagnostics": {"counts": [3, 4], "ess": [1.5, 2.5]}}
    fastdd.export_synthetic(made(metadata={"kde": kde}), tmp_path / "a.npz", to="npz")
    read = fastdd.import_synthetic(tmp_path / "a.npz", dataset="cifar10")
    assert (read.labels.tolist(), read.metadata["kde"]) == ([3, 3, 5, 5], {"bandwidth": 0.1})
    assert fastdd.import_synthetic(tmp_path / "a.npz").metadata["kde"] == kde


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"mean": [0.1, 0.2], "std": [0.3]}, ["mean needs 1 numbers, not 2"]),
        ({"metadata": "{"}, ["metadata is not JSON"]),
        ({"learning_rate": ["fast"]}, ["learning_rate needs 1 numbers"]),
        ({"zca_mean": np.zeros(3), "zca_matrix": np.zeros((2, 2))}, ["ZCA's mean must be float32"]),
        ({"soft_labels": np.zeros((20, 10))}, ["no probabilities"]),
        ({"class_names": ["one"]}, ["labels 0..9 are outside its 1 classes"]),
        ({"std": [0.0]}, ["std must be positive, not [0.0]"]),
    ],
)
def test_archives_that_do_not_fit(tmp_path, arrays, words):
    np.savez(tmp_path / "a.npz", **({"images": images().numpy(), "labels": classes().numpy(), **MNIST} | arrays))
    with refused(ValueError, *words):
        fastdd.import_synthetic(tmp_path / "a.npz")


def test_a_truncated_archive(tmp_path):
    np.savez(tmp_path / "a.npz", images=images().numpy(), labels=classes().numpy())
    content = (tmp_path / "a.npz").read_bytes()
    (tmp_path / "a.npz").write_bytes(content[: len(content) // 2])
    with refused(RuntimeError, "damaged"):
        fastdd.import_synthetic(tmp_path / "a.npz")
