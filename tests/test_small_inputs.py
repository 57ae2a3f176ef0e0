"""Small inputs on which published code for the same work failed, from its users' reports; what they do here."""

import math

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

import fastdd
from fastdd import ops
from fastdd.data import Dataset, Split, SyntheticSet
from fastdd.evaluation import Evaluation, GroupCounts, Protocol
from fastdd.methods import configure

pytestmark = pytest.mark.filterwarnings("ignore::fastdd.evaluation.DoubtfulFigures")
FEW = {"iterations": 1, "width": 4, "batch_real": 8, "ipc": 1}
LOOPS = {"outer_loop": 1, "inner_loop": 1}


def made(shape=(3, 16, 16), labels=(0, 1, 2) * 10, classes=3):
    """Random images in two groups."""
    labels = np.array(labels, np.int64)
    pixels = np.random.default_rng(0).integers(0, 256, (len(labels), *shape), np.uint8)
    split, channels = Split(pixels, labels, np.arange(len(labels)) // 3 % 2), shape[0]
    names = tuple(f"c{number}" for number in range(classes))
    return Dataset("mine", split, split, names, ("a", "b"), (0.5,) * channels, (0.25,) * channels, {})


@pytest.fixture(scope="module")
def digits():
    return fastdd.data.load("c-digits")


@pytest.mark.parametrize("strategy", ["color_crop_cutout_flip_scale_rotate", "color", "cutout"])
def test_augmented_gradient_matching_of_one_image_a_class(digits, strategy):
    """Augmentation writes in place to what one image shares with itself."""
    synthetic = fastdd.distill(digits, method="dsa", dsa_strategy=strategy, **FEW, **LOOPS)
    assert synthetic.images.isfinite().all()
    assert fastdd.evaluate(synthetic, digits, nets=1, epochs=1).summary()["accuracy"]["mean"] >= 0


def test_a_label_outside_the_classes_is_named_with_its_row():
    with pytest.raises(ValueError, match=r"train: label 5 at row 30 is outside 0\.\.2"):
        made(labels=[0] * 30 + [5] * 30)
    with pytest.raises(ValueError, match=r"labels must have the shape \[4\], one an image, not \[4, 2\]"):
        Split(np.zeros((4, 3, 8, 8), np.uint8), np.zeros((4, 2), np.int64), np.zeros(4, np.int64))


def test_one_network_has_no_spread_and_no_interval():
    """A deviation of one value would be NaN, which JSON has not."""
    counts = GroupCounts(torch.tensor([[3, 1]]), torch.tensor([[4, 4]]))
    one = Evaluation("ConvNet", (counts,), 1.0, Protocol(epochs=1), 0).summary()["accuracy"]
    assert (one["mean"], one["std"], one["interval"]) == (50.0, 0.0, None)


@pytest.mark.parametrize("ipc", [1, 2, 3, 7, 10, 11, 50, 99])
def test_every_ipc_has_loops(ipc):
    """The published ones, and of others so many matching steps as images."""
    config = configure(dataset="cifar10", method="dc", ipc=ipc)
    published = {1: (1, 1), 10: (10, 50), 50: (50, 10)}
    assert (config.outer_loop, config.inner_loop) == published.get(ipc, (config.outer_loop, config.inner_loop))
    assert config.outer_loop >= 1
    assert config.inner_loop >= 1


@pytest.mark.parametrize("shape", [(3, 24, 40), (1, 40, 24)])
@pytest.mark.parametrize(("method", "arch"), [("dm", "ConvNet"), ("dsa", "ConvNet"), ("dm", "LeNet"), ("dm", "ViT1")])
def test_images_that_are_not_square_are_distilled_evaluated_and_exported(shape, method, arch, tmp_path):
    network = {"width": 4} if arch == "ConvNet" else {}
    loops = LOOPS if method == "dsa" else {}
    settings = {"iterations": 1, "batch_real": 8, "ipc": 1, "dsa_strategy": "flip_scale_rotate"}
    data = made(shape)
    synthetic = fastdd.distill(data, method=method, arch=arch, **settings, **network, **loops)
    assert synthetic.images.shape == (3, *shape)
    assert 0 <= fastdd.evaluate(synthetic, data, nets=1, epochs=1).summary()["accuracy"]["mean"] <= 100
    fastdd.export_synthetic(synthetic, tmp_path / "set.npz", to="npz")
    assert torch.equal(fastdd.import_synthetic(tmp_path / "set.npz").images, synthetic.images)


def test_classes_of_unequal_sizes_are_exported_imported_and_evaluated(tmp_path):
    data = made()
    metadata = {"class_names": list(data.class_names), "mean": [0.5] * 3, "std": [0.25] * 3, "dataset": "mine"}
    synthetic = SyntheticSet(torch.randn(7, 3, 16, 16), torch.tensor([0, 0, 0, 1, 1, 1, 2]), metadata)
    fastdd.export_synthetic(synthetic, tmp_path / "unequal.pt", to="dc")
    read = fastdd.import_synthetic(tmp_path / "unequal.pt")
    assert torch.equal(read.images, synthetic.images)
    assert read.labels.tolist() == [0, 0, 0, 1, 1, 1, 2]
    assert fastdd.evaluate(read, data, nets=1, epochs=1, width=4).summary()["accuracy"]["mean"] >= 0


def test_files_saved_on_a_gpu_in_any_precision_are_read_on_the_cpu(tmp_path, monkeypatch):
    images = torch.randn(4, 3, 8, 8)
    for dtype in (torch.float16, torch.float64, torch.float32):
        content = {"data": [[torch.nn.Parameter(images.to(dtype)), torch.tensor([0, 0, 1, 1])]], "score": np.float64(1)}
        with monkeypatch.context() as patched:
            patched.setattr(torch.serialization, "location_tag", lambda storage: "cuda:0")
            torch.save(content, tmp_path / "res.pt")
        assert b"cuda:0" in (tmp_path / "res.pt").read_bytes()
        read = fastdd.import_synthetic(tmp_path / "res.pt", mean=[0.5] * 3, std=[0.5] * 3)
        assert read.images.device.type == "cpu"
        assert torch.equal(read.images, images.to(dtype).float())


def test_more_neighbours_than_rows_and_rows_that_are_equal():
    """An index answers with row -1 at a distance of 3e38 where there are no more."""
    pytest.importorskip("faiss")
    x = torch.randn(5, 4, generator=torch.Generator().manual_seed(0))
    for rows, out in ((x, False), (x, True), (x[:1].expand(6, 4).contiguous(), True)):
        found = ops.knn_kde(rows, bandwidth=0.3, k=50, leave_one_out=out).log_density
        assert found.isfinite().all()
        exact = ops.kde(rows.double(), bandwidth=0.3, leave_one_out=out).float()
        assert torch.allclose(found, exact, rtol=1e-5, atol=1e-4)


def test_densities_of_real_pixels_are_exact():
    """Of 1,797 digits; against sums in float64."""
    x = torch.from_numpy(load_digits().data).float() / 16
    distances = torch.cdist(x.double(), x.double(), compute_mode="donot_use_mm_for_euclid_dist").square_()
    distances.fill_diagonal_(math.inf)
    log_scale = math.log(len(x) - 1) + x.shape[1] / 2 * math.log(2 * math.pi * 0.1)
    exact = torch.logsumexp(-distances / 0.2, 1) - log_scale
    assert (ops.kde(x, bandwidth=0.1**0.5, leave_one_out=True).double() - exact).abs().max() <= 5e-5


def test_a_group_that_the_test_set_has_not_is_not_perfectly_fair():
    data = fastdd.data.load("c-digits", missing_groups=9)
    summary = fastdd.evaluate("random", data, ipc=1, nets=1, epochs=1, width=4, arch="ConvNet").summary()
    assert summary["accuracy"]["mean"] >= 0
    for name in ("deo_m", "deo_a"):
        assert summary[name]["mean"] is None
