"""ZCA: the published transform against a singular value decomposition, its inverse, its file, and bad input."""

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from fastdd.data import Zca


def pixels(n=300, shape=(3, 5, 4), seed=0):
    """Images whose pixels go together: smooth noise over the whole range 0..255."""
    noise = np.random.default_rng(seed).normal(size=(n, *shape)).cumsum(2).cumsum(3)
    return (60 * noise + 128).clip(0, 255).astype(np.uint8)


def published(images, eps=0.1):
    """(mean, U (S + eps)^(-1/2) U^T, U, S) in float64, from the singular values of the centred images themselves."""
    flat = images.reshape(len(images), -1) / 255
    mean = flat.mean(0)
    _, singular, vectors = np.linalg.svd(flat - mean)
    values = np.zeros(flat.shape[1])
    values[: len(singular)] = singular**2 / (len(images) - 1)
    return mean, vectors.T / np.sqrt(values + eps) @ vectors, vectors.T, values


# More images than are summed at a time; as many values as images; fewer images than values; black and white alone.
@pytest.mark.parametrize(
    "images",
    [pixels(2500, (1, 4, 4)), pixels(48, (3, 4, 4)), pixels(2, (3, 4, 4)), 255 * (pixels(2100, (1, 3, 3)) // 128)],
)
@pytest.mark.parametrize("eps", [0.1, 1e-3])
def test_is_the_published_transform(images, eps):
    mean, matrix, _, _ = published(images, eps)
    made = Zca.fit(images, eps=eps)
    assert (made.mean.dtype, made.matrix.dtype) == (torch.float32, torch.float32)
    np.testing.assert_allclose(made.mean, mean, rtol=1e-7, atol=0)
    np.testing.assert_allclose(made.matrix, matrix, rtol=0, atol=1e-7 * np.abs(matrix).max())
    assert torch.equal(made.matrix, made.matrix.T)


def test_whitened_pixels_have_the_covariance_s_over_s_plus_eps():
    images = pixels()
    _, _, vectors, values = published(images)
    whitened = Zca.fit(images).whiten(images)
    assert (whitened.shape, whitened.dtype) == (images.shape, torch.float32)
    covariance = np.cov(whitened.flatten(1).double().numpy() @ vectors, rowvar=False)
    np.testing.assert_allclose(covariance, np.diag(values / (values + 0.1)), atol=1e-6)
    np.testing.assert_allclose(whitened.mean(0), np.zeros(images.shape[1:]), atol=1e-6)


def test_other_images_get_the_same_transform():
    images, others = pixels(), pixels(1500, seed=1)
    mean, matrix, _, _ = published(images)
    expected = (others.reshape(len(others), -1) / 255 - mean) @ matrix
    np.testing.assert_allclose(Zca.fit(images).whiten(others).flatten(1), expected, atol=1e-5)


def test_the_inverse_gives_the_pixels_back():
    images = pixels()
    zca = Zca.fit(images)
    back = zca.unwhiten(zca.whiten(images))
    assert back.dtype == torch.float32
    assert (255 * back - torch.from_numpy(images)).abs().max() < 1e-3


def test_two_fits_are_one(tmp_path):
    images = pixels(1500)
    first, again = Zca.fit(images), Zca.fit(images)
    assert torch.equal(first.matrix, again.matrix)
    assert first.digest() == again.digest()
    np.save(tmp_path / "images.npy", images)
    assert Zca.fit(np.load(tmp_path / "images.npy", mmap_mode="c")).digest() == first.digest()
    changed = images.copy()
    changed[7, 0, 0, 0] ^= 1
    assert Zca.fit(changed).digest() != first.digest()


def test_read_makes_images_to_train_on():
    images = pixels()
    zca = Zca.fit(images)
    made = zca.read(images)
    assert made.mean is None
    assert torch.equal(made.read(torch.tensor([3, 1])), zca.whiten(images)[[3, 1]])


@pytest.mark.realdata
def test_decorrelates_real_images(data_root):
    from fastdd.data import load

    images = load("mnist", data_root).train.images[:1500]
    mean, matrix, _, _ = published(images)
    made = Zca.fit(images)
    np.testing.assert_allclose(made.mean, mean, rtol=1e-7, atol=1e-12)
    np.testing.assert_allclose(made.matrix, matrix, atol=1e-6)


def test_what_is_written_is_read_back(tmp_path):
    zca = Zca.fit(pixels())
    zca.save(tmp_path / "zca.safetensors")
    read = Zca.load(tmp_path / "zca.safetensors")
    assert torch.equal(read.mean, zca.mean)
    assert torch.equal(read.matrix, zca.matrix)
    assert read.digest() == zca.digest()
    read.save(tmp_path / "again.safetensors")
    assert (tmp_path / "again.safetensors").read_bytes() == (tmp_path / "zca.safetensors").read_bytes()


@pytest.mark.parametrize(
    ("images", "error", "message"),
    [
        (pixels(1), ValueError, "ZCA needs at least 2 images, not 1"),
        (pixels(0), ValueError, "ZCA needs at least 2 images, not 0"),
        (pixels().astype(np.float32), TypeError, "images must be a numpy array of uint8, not float32"),
        (torch.from_numpy(pixels()), TypeError, "images must be a numpy array of uint8, not torch.uint8"),
        (pixels()[:, 0], ValueError, r"images must have the shape \[N, C, H, W\], not \[300, 5, 4\]"),
    ],
)
def test_what_cannot_be_fitted_is_refused(images, error, message):
    with pytest.raises(error, match=message):
        Zca.fit(images)


@pytest.mark.parametrize("eps", [0.0, -0.1, float("nan"), float("inf")])
def test_eps_must_be_positive(eps):
    with pytest.raises(ValueError, match=f"eps must be positive, not {eps}"):
        Zca.fit(pixels(), eps=eps)


def test_images_of_another_shape_are_refused():
    zca = Zca.fit(pixels())
    message = r"images of shape \[3, 1, 5, 4\] have 20 values each, ZCA was fitted on 60"
    with pytest.raises(ValueError, match=message):
        zca.whiten(pixels(3, (1, 5, 4)))
    with pytest.raises(ValueError, match=message):
        zca.unwhiten(torch.zeros(3, 1, 5, 4))
    with pytest.raises(TypeError, match=r"uint8, not int64"):
        zca.whiten(pixels().astype(np.int64))


@pytest.mark.parametrize(
    ("mean", "matrix", "error", "message"),
    [
        (torch.zeros(3), torch.zeros(3, 2), ValueError, r"a matrix \[D, D\], not \[3\] and \[3, 2\]"),
        (torch.zeros(1, 3), torch.zeros(3, 3), ValueError, r"a mean \[D\]"),
        (torch.zeros(3).double(), torch.zeros(3, 3), TypeError, "mean must be float32, not torch.float64"),
        (torch.zeros(3), torch.full((3, 3), torch.nan), ValueError, "matrix has values that are not finite"),
    ],
)
def test_a_transform_that_is_none_is_refused(mean, matrix, error, message):
    with pytest.raises(error, match=message):
        Zca(mean, matrix)


@pytest.mark.parametrize("keep", [0, 5, 60, -1])
def test_a_truncated_file_is_named(tmp_path, keep):
    path = tmp_path / "zca.safetensors"
    Zca.fit(pixels()).save(path)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(RuntimeError, match=r"zca\.safetensors is damaged, or no safetensors file") as caught:
        Zca.load(path)
    assert "\n" not in str(caught.value)


def test_another_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"there is no ZCA .*zca\.safetensors"):
        Zca.load(tmp_path / "zca.safetensors")
    save_file({"zca.mean": torch.zeros(2)}, tmp_path / "zca.safetensors")
    with pytest.raises(RuntimeError, match=r"is a safetensors file but has no zca\.matrix"):
        Zca.load(tmp_path / "zca.safetensors")
    save_file({"zca.mean": torch.zeros(2), "zca.matrix": torch.ones(2)}, tmp_path / "zca.safetensors")
    with pytest.raises(RuntimeError, match=r"zca\.safetensors is damaged"):
        Zca.load(tmp_path / "zca.safetensors")
