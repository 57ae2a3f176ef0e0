"""Files of IDC, and the decoding of multi-formation."""

import numpy as np
import pytest
import torch

import fastdd
from fastdd.exchange.idc import decode
from tests.exchange.samples import classes, read_mnist, refused


@pytest.fixture
def idc(tmp_path):
    """Writes data.pt of IDC's into a folder of a name; returns the folder."""

    def write(pixels, labels, name="run"):
        (tmp_path / name).mkdir()
        torch.save([pixels, labels], tmp_path / name / "data.pt")
        return tmp_path / name

    return write


def test_pixels_are_normalised(idc):
    pixels = torch.rand(20, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    folder = idc(pixels, classes())
    for path in (folder, folder / "data.pt"):
        read = read_mnist(path)
        torch.testing.assert_close(read.images, (pixels - 0.1307) / 0.3081)
        assert (read.metadata["method"], read.metadata["source"]["notes"]) == ("idc", [])
    whole = idc((pixels * 255).to(torch.uint8), classes(), "whole")
    torch.testing.assert_close(read_mnist(whole).images, ((pixels * 255).floor() / 255 - 0.1307) / 0.3081)
    torch.save([pixels * 3 - 1, classes()], folder / "data.pt")
    assert "pixels from -1 to 2" in read_mnist(folder).metadata["source"]["notes"][0]


def test_multi_formation_has_to_be_told(idc):
    folder = idc(torch.rand(20, 1, 28, 28), classes(), "conv3in_factor2_lr0.005_mix_ipc2")
    with refused(ValueError, "says factor 2; give --factor 2"):
        read_mnist(folder)
    assert len(read_mnist(folder, factor=1).images) == 20
    read = read_mnist(folder, factor=2)
    assert (len(read.images), read.metadata["ipc"], read.formation) == (20, 2, 2)
    assert read.decoded().labels.tolist() == [label for label in range(10) for _ in range(8)]
    # Several factors are decoded here: a set has one.
    read = read_mnist(folder, factor=2, decoder="multi")
    assert (len(read.images), read.metadata["ipc"], read.formation) == (100, 2, 1)


def test_a_set_is_seen_as_its_file_is_decoded(idc):
    pixels = torch.rand(20, 1, 28, 28, generator=torch.Generator().manual_seed(3))
    decoded, _ = decode(pixels, classes(), 3)
    read = read_mnist(idc(pixels, classes()), factor=3)
    torch.testing.assert_close(read.decoded().images, (decoded - 0.1307) / 0.3081, rtol=0, atol=1e-5)


def test_the_factor_goes_out_and_comes_back(idc, tmp_path):
    original = read_mnist(idc(torch.rand(20, 1, 28, 28), classes()), factor=2)
    written = fastdd.export_synthetic(original, tmp_path / "out", to="idc")
    assert any("--factor 2" in note for note in written.notes)
    read = fastdd.import_synthetic(tmp_path / "out")
    assert read.formation == 2
    torch.testing.assert_close(read.images, original.images)
    assert fastdd.import_synthetic(tmp_path / "out", factor=2).formation == 2
    with refused(ValueError, "says factor 2, not 3"):
        fastdd.import_synthetic(tmp_path / "out", factor=3)


def test_the_step_of_a_folder(tmp_path):
    """DREAM's and NCFM's: files of steps, without one that is the result."""
    pixels = [torch.rand(20, 1, 28, 28, generator=torch.Generator().manual_seed(seed)) for seed in range(4)]
    names = ("data_init.pt", "data_40.pt", "data_1000.pt")
    for name, each in zip(names, pixels, strict=False):
        torch.save([each, classes()], tmp_path / name)
    (tmp_path / "data_old.pt").write_bytes(b"of another program")
    last = read_mnist(tmp_path)
    torch.testing.assert_close(last.images * 0.3081 + 0.1307, pixels[2])
    assert "data_1000.pt of 3 (the last; --iteration" in last.metadata["source"]["notes"][0]
    for iteration, each in (("init", pixels[0]), ("40", pixels[1]), ("1000", pixels[2])):
        read = read_mnist(tmp_path, iteration=iteration)
        torch.testing.assert_close(read.images * 0.3081 + 0.1307, each)
        assert read.metadata["source"]["notes"] == []
    with refused(ValueError, "no images of iteration 7; there are init, 40, 1000"):
        read_mnist(tmp_path, iteration="7")
    with refused(ValueError, "is one step's file: give its folder"):
        read_mnist(tmp_path / "data_40.pt", iteration="40")
    torch.save([pixels[3], classes()], tmp_path / "data.pt")
    result = read_mnist(tmp_path)
    torch.testing.assert_close(result.images * 0.3081 + 0.1307, pixels[3])
    assert result.metadata["source"]["notes"] == []


def test_a_step_goes_out_and_comes_back(tmp_path):
    torch.save([torch.rand(20, 1, 28, 28), classes()], tmp_path / "data200.pt")
    original = read_mnist(tmp_path, factor=2)
    written = fastdd.export_synthetic(original, tmp_path / "out" / "data_20000.pt", to="idc")
    for path in (written.files[0], tmp_path / "out"):
        read = fastdd.import_synthetic(path)
        assert (read.formation, read.metadata["ipc"]) == (2, 2)
        torch.testing.assert_close(read.images, original.images)


def enlarged(part, size):
    """Bilinear, each pixel's centre where it belongs, in float64, one pixel after the other."""
    old = part.shape[-1]
    at = [min(max((i + 0.5) * old / size - 0.5, 0), old - 1) for i in range(size)]
    out = np.empty((*part.shape[:-2], size, size))
    for i, y in enumerate(at):
        for j, x in enumerate(at):
            top, left = int(y), int(x)
            bottom, right = min(top + 1, old - 1), min(left + 1, old - 1)
            b, r = y - top, x - left
            upper = part[..., top, left] * (1 - r) + part[..., top, right] * r
            lower = part[..., bottom, left] * (1 - r) + part[..., bottom, right] * r
            out[..., i, j] = upper * (1 - b) + lower * b
    return out


@pytest.mark.parametrize(("size", "factor"), [(8, 2), (9, 2), (7, 3), (6, 1)])
def test_decoding(size, factor):
    stored = torch.rand(4, 2, size, size, generator=torch.Generator().manual_seed(size))
    decoded, rows = decode(stored, torch.tensor([1, 0, 1, 0]), factor)
    side = -(-size // factor)
    padded = np.full((4, 2, side * factor, side * factor), 0.5)
    padded[:, :, :size, :size] = stored
    expected, order = [], []
    for of_class in ([1, 3], [0, 2]):
        for i in range(factor):
            for j in range(factor):
                for row in of_class:
                    part = padded[row, :, i * side : (i + 1) * side, j * side : (j + 1) * side]
                    expected.append(enlarged(part, size))
                    order.append(row)
    assert rows.tolist() == order
    np.testing.assert_allclose(decoded, np.stack(expected), atol=1e-6)


def test_decoders_of_several_factors():
    stored = torch.rand(30, 1, 6, 6)
    labels = torch.zeros(30, dtype=torch.int64)
    several, rows = decode(stored, labels, 3, "multi")
    assert len(several) == 30 * (1 + 4 + 9)
    assert torch.equal(several[:30], stored)
    # Of 128 places each image keeps one: 98 take 10 images in 9; with 20 to come, 18 of the other 38 take 4 in 4.
    bound, rows = decode(stored, labels, 3, "bound")
    assert torch.bincount(rows).tolist() == [9] * 10 + [4] * 4 + [1] * 16
    assert torch.equal(bound[-16:], stored[14:])


@pytest.mark.parametrize("options", [{"factor": 0}, {"factor": 29}, {"factor": 2, "decoder": "double"}])
def test_decoding_that_can_not_be(idc, options):
    with refused(ValueError, "decode"):
        read_mnist(idc(torch.rand(20, 1, 28, 28), classes()), **options)


def test_images_that_are_not_square_are_not_decoded(idc):
    with refused(ValueError, "square images"):
        read_mnist(idc(torch.rand(20, 1, 28, 14), classes()), factor=2)
