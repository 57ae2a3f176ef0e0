"""Files of trajectory matching."""

import pytest
import torch

import fastdd
from fastdd.data import Zca
from tests.exchange.samples import classes, images, read_mnist, refused


def test_a_folder_of_trajectory_matching(trajectory_matching):
    folder = trajectory_matching(
        images_best=images(), labels_best=classes(), lr_best=torch.tensor(0.02, requires_grad=True),
        images_500=images(seed=1), labels_500=classes().flip(0), images_1000=images(seed=2), labels_1000=classes(),
    )  # fmt: skip
    best = read_mnist(folder)
    assert torch.equal(best.images, images())
    assert best.learning_rate == pytest.approx(0.02)
    assert (best.metadata["method"], best.soft_labels) == ("mtt", None)
    for path, options in ((folder, {"iteration": "500"}), (folder / "images_500.pt", {})):
        read = read_mnist(path, **options)
        assert torch.equal(read.images, images(seed=1))
        assert torch.equal(read.labels, classes().flip(0))
        assert (read.learning_rate, read.metadata["source"]["iteration"]) == (None, "500")
    assert read_mnist(folder, learning_rate=0.5).learning_rate == 0.5
    with refused(ValueError, "no images of iteration 7; there are best, 500, 1000"):
        read_mnist(folder, iteration="7")
    (folder / "images_best.pt").unlink()
    with refused(ValueError, "give --iteration, one of 500, 1000"):
        read_mnist(folder)
    (folder / "images_1000.pt").unlink()
    assert torch.equal(read_mnist(folder).images, images(seed=1))
    (folder / "labels_500.pt").unlink()
    with refused(FileNotFoundError, "labels_500.pt"):
        read_mnist(folder)


def test_soft_labels(trajectory_matching):
    logits = torch.randn(20, 10, generator=torch.Generator().manual_seed(1))
    folder = trajectory_matching(images_best=images(), labels_best=logits.softmax(1))
    read = read_mnist(folder)
    assert torch.equal(read.soft_labels, logits.softmax(1))
    assert torch.equal(read.labels, logits.argmax(1))
    torch.save(logits, folder / "labels_best.pt")
    with refused(ValueError, "no probabilities (row 0 sums to", "give --labels logits"):
        read_mnist(folder)
    torch.testing.assert_close(read_mnist(folder, labels="logits").soft_labels, logits.softmax(1))
    torch.save(logits.softmax(1).half(), folder / "labels_best.pt")
    torch.testing.assert_close(read_mnist(folder).soft_labels, logits.softmax(1), atol=1e-3, rtol=1e-3)
    torch.save(torch.nn.functional.one_hot(classes(), 10).float(), folder / "labels_best.pt")
    hard = read_mnist(folder)
    assert (hard.soft_labels, hard.labels.tolist()) == (None, classes().tolist())
    torch.save(logits.softmax(1)[:, :3], folder / "labels_best.pt")
    with refused(ValueError, "no probabilities"):
        read_mnist(folder)
    with refused(ValueError, "unknown meaning of labels 'hard'"):
        read_mnist(folder, labels="hard")


@pytest.mark.parametrize("rate", ["fast", [0.1], torch.zeros(2), True])
def test_a_step_size_that_is_none(trajectory_matching, rate):
    folder = trajectory_matching(images_best=images(), labels_best=classes(), lr_best=rate)
    with refused(ValueError, "lr_best.pt is not a step size"):
        read_mnist(folder)


def test_a_set_in_parts(trajectory_matching):
    parts = {f"images_best_{i}": images(4, seed=i) for i in range(5)}
    folder = trajectory_matching(**parts, **{f"labels_best_{i}": torch.full((4,), i) for i in range(5)})
    read = read_mnist(folder)
    assert torch.equal(read.images, torch.cat(list(parts.values())))
    assert read.labels.tolist() == classes(20, 5).tolist()


def test_whitened_images_get_their_zca_from_the_data_set(trajectory_matching, c_digits):
    zca = Zca.fit(c_digits.train.images)
    whitened = zca.whiten(c_digits.train.images[:20])
    folder = trajectory_matching(images_best=whitened, images_zca_best=zca.unwhiten(whitened), labels_best=classes())
    read = fastdd.import_synthetic(folder, dataset=c_digits, zca=True)
    assert torch.equal(read.images, whitened)
    assert read.zca.digest() == zca.digest()
    assert (read.metadata["mean"], read.metadata["std"]) == ([0.0] * 3, [1.0] * 3)
    # What the whitening was taken back of are pixels, which networks saw whitened.
    plain = fastdd.import_synthetic(folder / "images_zca_best.pt", dataset=c_digits)
    torch.testing.assert_close(
        plain.images, torch.from_numpy(c_digits.train.images[:20]) / 127.5 - 1, atol=1e-4, rtol=0
    )
    assert "whitening taken back" in plain.metadata["source"]["notes"][0]
    with refused(ValueError, "holds pixels, not whitened images"):
        fastdd.import_synthetic(folder / "images_zca_best.pt", dataset=c_digits, zca=True)
    with refused(ValueError, "ZCA is fitted on a data set"):
        fastdd.import_synthetic(folder, zca=True)
    (folder / "images_best.pt").rename(folder / "other.pt")
    with refused(ValueError, "whitening taken back only (images_zca_*.pt): give one of them"):
        fastdd.import_synthetic(folder, dataset=c_digits)
    with refused(ValueError, "other.pt holds images only; call it images_best.pt"):
        fastdd.import_synthetic(folder / "other.pt", dataset=c_digits)
    (folder / "other.pt").rename(folder / "images_best.pt")
    # Only runs with ZCA write images_zca_*.pt.
    for path in (folder, folder / "images_best.pt"):
        with refused(ValueError, "are whitened: give --zca"):
            fastdd.import_synthetic(path, dataset=c_digits)


def test_averages_over_steps(trajectory_matching):
    """FTD's, in a folder of their own."""
    folder = trajectory_matching(
        ema_images_best=images(), ema_labels_best=classes(),
        ema_images_500=images(seed=1), ema_labels_500=classes().flip(0),
    )  # fmt: skip
    assert fastdd.exchange.is_foreign(folder)
    assert torch.equal(read_mnist(folder).images, images())
    for path, options in ((folder, {"iteration": "500"}), (folder / "ema_images_500.pt", {})):
        read = read_mnist(path, **options)
        assert torch.equal(read.images, images(seed=1))
        assert torch.equal(read.labels, classes().flip(0))
    # Beside others they are asked for by name.
    torch.save(images(seed=2), folder / "images_500.pt")
    torch.save(classes(), folder / "labels_500.pt")
    assert torch.equal(read_mnist(folder).images, images(seed=2))
    assert torch.equal(read_mnist(folder / "ema_images_best.pt").images, images())
