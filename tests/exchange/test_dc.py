"""Results of DC and FairDD."""

import io
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

import fastdd
from fastdd.exchange import published
from tests.exchange.samples import classes, images, read_mnist, refused


def test_a_result_of_dc(result):
    path = result(accuracies={"ConvNet": [np.float64(0.5), np.float64(0.25)]})
    read = read_mnist(path)
    assert torch.equal(read.images, images())
    assert torch.equal(read.labels, classes())
    about = read.metadata
    assert (about["mean"], about["std"], about["class_names"]) == ([0.1307], [0.3081], list("0123456789"))
    assert (about["dataset"], about["method"], about["debias"], about["ipc"]) == ("mnist", "dm", "none", 2)
    assert about["run"] == {
        "arch": "ConvNet",
        "width": None,
        "depth": None,
        "dsa_strategy": "color_crop_cutout_flip_scale_rotate",
    }
    assert about["source"]["accuracies"] == {"ConvNet": [50.0, 25.0]}
    file = about["source"]["files"][0]
    assert (file["file"], file["bytes"]) == (path.name, path.stat().st_size)
    assert len(file["sha256"]) == 64
    assert about["source"]["notes"] == []


def test_the_last_experiment_or_the_one_asked_for_with_its_own_accuracies(result):
    sets = [[images(seed=seed), classes()] for seed in range(3)]
    path = result(sets, {"ConvNet": [10.0, 20.0, 30.0, 40.0, 50.0, 60.0]})  # percent, two networks each: FairDD
    last, first = read_mnist(path), read_mnist(path, experiment=0)
    assert torch.equal(last.images, sets[2][0])
    assert torch.equal(first.images, sets[0][0])
    assert last.metadata["source"]["accuracies"] == {"ConvNet": [50.0, 60.0]}
    assert first.metadata["source"]["accuracies"] == {"ConvNet": [10.0, 20.0]}
    assert "experiment 2 of 0 to 2" in last.metadata["source"]["notes"][0]
    with refused(ValueError, "experiments 0 to 2, not 3"):
        read_mnist(path, experiment=3)


@pytest.mark.parametrize("values", [[], [np.nan], ["?"], {"a": 1}, None])
def test_accuracies_that_are_none_do_not_matter(result, values):
    assert "accuracies" not in read_mnist(result(accuracies={"ConvNet": values})).metadata["source"]


@pytest.mark.parametrize("to", [torch.float64, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("label_type", [torch.int32, torch.uint8, torch.float32, torch.int64])
def test_other_types(result, to, label_type):
    read = read_mnist(result([[images().to(to).requires_grad_(), classes().to(label_type).view(-1, 1)]]))
    assert (read.images.dtype, read.labels.dtype, read.images.requires_grad) == (torch.float32, torch.int64, False)
    assert torch.equal(read.images, images().to(to).float())
    assert torch.equal(read.labels, classes())
    assert any("float64" in note for note in read.metadata["source"]["notes"]) == (to == torch.float64)


def test_arrays_of_numpy(result):
    read = read_mnist(result([[images().numpy(), classes().numpy().astype(np.int32)]]))
    assert torch.equal(read.images, images())
    assert torch.equal(read.labels, classes())


def test_tensors_that_were_on_a_gpu(result, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(torch.serialization, "location_tag", lambda storage: "cuda:3")
        path = result()
    assert b"cuda:3" in path.read_bytes()
    assert torch.equal(read_mnist(path).images, images())


def test_any_order_and_number_of_labels(result):
    labels = torch.tensor([3, 1, 1, 0, 9])
    read = read_mnist(result([[images(5), labels]]))
    assert torch.equal(read.labels, labels)
    assert "ipc" not in read.metadata


def test_the_one_pair_itself(result):
    """COBRA's IDC, and what DataDAM evaluates."""
    read = read_mnist(result([images(), classes()], name="res_IDC_MNIST_ConvNet_2ipc_cobra.pt"))
    assert torch.equal(read.images, images())
    assert torch.equal(read.labels, classes())
    assert read.metadata["source"]["experiments"] == 1


def test_images_that_hold_several(result, tmp_path):
    """IDM's quarters (``--aug``)."""
    stored = images()
    path = result([[stored, classes()]], name="res_DM_MNIST_ConvNet_2ipc.pt")
    assert read_mnist(path).formation == 1
    read = read_mnist(path, factor=2)
    assert (len(read.images), read.formation, read.metadata["ipc"]) == (20, 2, 2)
    assert any("seen as 80" in note for note in read.metadata["source"]["notes"])
    decoded = read.decoded()
    quarter = torch.nn.functional.interpolate(stored[:, :, 14:, :14], scale_factor=2, mode="bilinear")
    for label in range(10):
        own = decoded.images[decoded.labels == label]
        for image in quarter[2 * label : 2 * label + 2]:
            assert (own - image).abs().amax((1, 2, 3)).min() < 1e-5
    kept = fastdd.export_synthetic(read, tmp_path / "set.npz", to="npz").files[0]
    assert torch.equal(fastdd.import_synthetic(kept).images, stored)
    assert fastdd.import_synthetic(kept).formation == 2
    written = fastdd.export_synthetic(read, tmp_path / "out", to="dc")
    assert any("dc has no multi-formation" in note for note in written.notes)
    again = fastdd.import_synthetic(written.files[0])
    assert torch.equal(again.images, decoded.images)
    with refused(ValueError, "says factor 1, not 2"):
        fastdd.import_synthetic(written.files[0], factor=2)
    with refused(ValueError, "square images"):
        read_mnist(result([[images(20, (1, 28, 14)), classes()]], name="res_DM_MNIST_MLP_2ipc.pt"), factor=2)


def test_networks_by_the_name_of_the_file(result):
    assert read_mnist(result(name="res_DC_MNIST_ConvNetD4_1ipc.pt")).metadata["run"]["arch"] == "ConvNetD4"
    assert read_mnist(result(), arch="convnetd2").metadata["run"]["arch"] == "ConvNetD2"
    other = read_mnist(result(name="res_DC_MNIST_Own_Net_1ipc.pt")).metadata
    assert (other["method"], other["run"]["arch"], other["run"]["dsa_strategy"]) == ("dc", "ConvNet", "none")
    assert "Net, its network, is not known here" in other["source"]["notes"][0]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("res_DM_CIFAR10_ConvNet_10ipc.pt", ("DM", "CIFAR10", "ConvNet", "10")),
        ("res_DSA_BFFHQ_ResNet18BN_AP_50ipc.pt", ("DSA", "BFFHQ", "ResNet18BN_AP", "50")),
        ("res_DM_Colored_MNIST_foreground_MLP_1ipc.pt", ("DM", "Colored_MNIST_foreground", "MLP", "1")),
        ("res_DC_CIFAR10_S_90_AlexNet_1ipc.pt", ("DC", "CIFAR10_S_90", "AlexNet", "1")),
        ("res_DC_BFFHQ_ConvNet_1ipc_fair.pt", ("DC", "BFFHQ", "ConvNet", "1")),
        ("res_DC_CIFAR10_1ipc.pt", ()),
        ("res_DM_BFFHQ_ConvNet_1000ori.pt", ()),
        ("images_best.pt", ()),
    ],
)
def test_names_of_results(name, expected):
    assert tuple(published.of_result(Path(name)).values()) == expected


def test_the_folder_of_a_run(result, tmp_path):
    """FairDD's has networks beside the result."""
    result(name="res_DM_MNIST_ConvNet_2ipc.pt")
    torch.save({"net": {}}, tmp_path / "res_DM_MNIST_ConvNet_20000ori.pt")
    assert torch.equal(read_mnist(tmp_path).images, images())
    result(name="res_DM_MNIST_ConvNet_10ipc.pt")
    with refused(ValueError, "holds 2 results; give one, such as", "res_DM_MNIST_ConvNet_10ipc.pt"):
        read_mnist(tmp_path)


class TestIdmsBestSet:
    """``pickle.dump((images, labels))`` in ``checkpoints/DATASET_ipc_IPC_aug_AUG_model_MODEL/acc_ACCURACY.pkl``."""

    @staticmethod
    def write(tmp_path, accuracy, value, packed=True):
        folder = tmp_path / f"MNIST_ipc_2_aug_{packed}_model_ConvNet_GBN"
        folder.mkdir(exist_ok=True)
        path = folder / f"acc_{accuracy}.pkl"
        path.write_bytes(pickle.dumps(value))
        return path

    def test_is_read_with_what_its_names_say(self, tmp_path):
        path = self.write(tmp_path, 0.25, (images().requires_grad_().detach(), classes()))
        read = read_mnist(path, factor=2)
        assert torch.equal(read.images, images())
        assert torch.equal(read.labels, classes())
        assert read.formation == 2
        assert read.metadata["source"]["accuracies"] == {"ConvNet_GBN": [25.0]}
        assert published.dataset_of(path) == "mnist"

    def test_the_best_of_a_folder(self, tmp_path):
        for accuracy in ("0.5", "0.0625", "0.25"):
            path = self.write(tmp_path, accuracy, (images() * float(accuracy), classes()), packed=False)
        assert torch.equal(read_mnist(path.parent).images, images() * 0.5)

    def test_what_is_packed_is_asked_for(self, tmp_path):
        path = self.write(tmp_path, 0.5, (images(), classes()))
        with refused(ValueError, "its folder says aug_True", "give --factor 2"):
            read_mnist(path)
        assert torch.equal(read_mnist(path, factor=1).images, images())

    def test_code_is_refused_and_damage_is_a_line(self, tmp_path):
        tensor = torch.zeros(2)
        for value, name in (
            (_Call(os.system, "true"), "os.system"),
            (_Call(torch.load, "x"), "torch.serialization.load"),
        ):
            with refused(RuntimeError, f"would run code ({name}): refused"):
                read_mnist(self.write(tmp_path, 0.5, (images(), value)))
        inner = io.BytesIO()
        torch.save([_Call(os.system, "true")], inner)
        with refused(RuntimeError, "would run code", "refused"):
            read_mnist(self.write(tmp_path, 0.5, (_Call(torch.storage._load_from_bytes, inner.getvalue()), tensor)))
        path = self.write(tmp_path, 0.5, (images(), classes()))
        whole = path.read_bytes()
        for kept in range(0, len(whole), 97):
            path.write_bytes(whole[:kept])
            with refused(RuntimeError, "is no pickle of tensors, or is damaged"):
                read_mnist(path)
        # Python takes memory for all places up to the last: 16 GiB here.
        path.write_bytes(b"\x80\x02K\x01r\xff\xff\xff\x7f.")
        with refused(RuntimeError, "is damaged: it numbers an object 2,147,483,647, and has 10 bytes"):
            read_mnist(path)
        path.unlink()
        os.mkfifo(path)
        with refused(FileNotFoundError, "there is no file"):
            read_mnist(path.parent)
        path.unlink()
        with refused(ValueError, "is not"):
            read_mnist(self.write(tmp_path, 0.5, {"images": images()}))


class _Call:
    def __init__(self, function, *arguments):
        self._call = function, arguments

    def __reduce__(self):
        return self._call
