"""The synthetic set's file: read back as written, byte-identical, and one line for each way it can be wrong."""

import json
import struct

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch.nn.functional import interpolate

from fastdd.data import SyntheticSet, Zca

METADATA = {
    "class_names": ("cat", "dog"),
    "mean": (0.4914, 0.4822, 0.4465),
    "std": (0.2023, 0.1994, 0.2010),
    "method": "dm",
    "seed": 0,
}


def synthetic(**changes):
    images = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    return SyntheticSet(**({"images": images, "labels": torch.tensor([0, 0, 1, 1]), "metadata": METADATA} | changes))


WHITENED = METADATA | {"mean": (0.0,) * 3, "std": (1.0,) * 3}
SOFT = torch.tensor([[0.9, 0.1], [0.5, 0.5], [0.0, 1.0], [0.25, 0.75]])


@pytest.fixture(scope="module")
def pixels():
    return np.random.default_rng(0).integers(0, 256, (40, 3, 8, 8), dtype=np.uint8)


@pytest.fixture(scope="module")
def zca(pixels):
    return Zca.fit(pixels)


@pytest.fixture
def saved(tmp_path):
    synthetic().save(tmp_path / "s.safetensors")
    return tmp_path / "s.safetensors"


def test_what_is_written_is_read_back(saved):
    original, read = synthetic(), SyntheticSet.load(saved)
    assert torch.equal(read.images, original.images)
    assert torch.equal(read.labels, original.labels)
    assert read.metadata == original.metadata
    assert read.metadata["schema"] == 1
    assert read.metadata["mean"] == [0.4914, 0.4822, 0.4465]
    assert (read.learning_rate, read.soft_labels, read.zca) == (None, None, None)
    assert torch.equal(read.targets, read.labels)


def test_what_trajectory_matching_learns_is_part_of_the_file(tmp_path, zca):
    original = synthetic(metadata=WHITENED, learning_rate=0.1 / 3, soft_labels=SOFT, zca=zca)
    original.save(tmp_path / "s")
    read = SyntheticSet.load(tmp_path / "s")
    assert read.learning_rate == 0.1 / 3
    assert torch.equal(read.soft_labels, SOFT)
    assert torch.equal(read.targets, SOFT)
    assert torch.equal(read.labels, original.labels)
    assert torch.equal(read.zca.matrix, zca.matrix)
    assert torch.equal(read.zca.mean, zca.mean)
    assert read.metadata == original.metadata
    read.save(tmp_path / "again")
    assert (tmp_path / "again").read_bytes() == (tmp_path / "s").read_bytes()
    assert Zca.load(tmp_path / "s").digest() == zca.digest()


def test_a_set_that_older_versions_would_use_wrongly_has_a_schema_that_they_refuse(tmp_path, zca):
    """They know images and labels alone."""
    for fields in ({"learning_rate": 0.02}, {"soft_labels": SOFT}, {"zca": zca, "metadata": WHITENED}):
        made = synthetic(**fields)
        made.save(tmp_path / "s")
        assert made.metadata["schema"] == SyntheticSet.load(tmp_path / "s").metadata["schema"] == 2
    made.zca = None
    made.save(tmp_path / "s")
    assert SyntheticSet.load(tmp_path / "s").metadata["schema"] == 1


@pytest.mark.parametrize("learning_rate", [-0.003, 0.0, 1e-300, 3])
def test_any_finite_learning_rate_is_read_back(tmp_path, learning_rate):
    """Published code lets the learned step size become negative."""
    synthetic(learning_rate=learning_rate).save(tmp_path / "s")
    assert SyntheticSet.load(tmp_path / "s").learning_rate == learning_rate


def test_equal_content_gives_equal_bytes_whatever_the_order_and_layout(saved, tmp_path):
    reversed_metadata = dict(reversed(METADATA.items()))
    images = synthetic().images.to(memory_format=torch.channels_last).requires_grad_()
    synthetic(images=images, metadata=reversed_metadata).save(tmp_path / "again")
    assert (tmp_path / "again").read_bytes() == saved.read_bytes()


def test_the_file_can_be_read_by_hand(tmp_path):
    images = torch.arange(8, dtype=torch.float32).view(2, 1, 2, 2)
    metadata = {"class_names": ["a", "b"], "mean": [0.5], "std": [0.5]}
    SyntheticSet(images, torch.tensor([0, 1]), metadata).save(tmp_path / "s")
    content = (tmp_path / "s").read_bytes()
    start = 8 + struct.unpack("<Q", content[:8])[0]
    header = json.loads(content[8:start])
    assert json.loads(header["__metadata__"]["fastdd"]) == metadata | {"schema": 1}
    arrays = {}
    for name, code in (("images", "<f4"), ("labels", "<i8")):
        first, last = header[name]["data_offsets"]
        arrays[name] = np.frombuffer(content[start + first : start + last], code).tolist()
    assert arrays == {"images": list(range(8)), "labels": [0, 1]}


@given(
    st.lists(st.tuples(st.floats(0, 1), st.floats(0.05, 1)), min_size=1, max_size=4),
)
def test_every_pixel_survives_normalisation(constants):
    mean, std = zip(*constants, strict=True)
    pixels = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16).repeat(1, len(mean), 1, 1)
    shape = (1, -1, 1, 1)
    images = (pixels / 255 - torch.tensor(mean).view(shape)) / torch.tensor(std).view(shape)
    data = SyntheticSet(images, torch.zeros(1, dtype=torch.int64), {"class_names": ["a"], "mean": mean, "std": std})
    assert torch.equal(data.to_uint8(), pixels)


def test_pixels_outside_the_range_are_clamped():
    images = torch.tensor([-100.0, 0.0, 100.0, 1.0]).view(1, 1, 2, 2)
    data = SyntheticSet(images, torch.tensor([0]), {"class_names": ["a"], "mean": [0.5], "std": [0.25]})
    # 0.5 * 255 = 127.5 and 0.75 * 255 = 191.25
    assert data.to_uint8().flatten().tolist() == [0, 128, 255, 191]


def test_whitened_images_become_the_pixels_that_they_were(pixels, zca):
    images = zca.whiten(pixels[:4])
    assert torch.equal(synthetic(images=images, metadata=WHITENED, zca=zca).to_uint8(), torch.from_numpy(pixels[:4]))
    far = synthetic(images=1000 * images, metadata=WHITENED, zca=zca).to_uint8()
    assert set(far.unique().tolist()) >= {0, 255}


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"learning_rate": float("nan")}, ValueError, "learning_rate must be finite, not nan"),
        ({"learning_rate": float("-inf")}, ValueError, "learning_rate must be finite, not -inf"),
        ({"learning_rate": torch.tensor(0.1)}, TypeError, "learning_rate must be a number, not Tensor"),
        ({"learning_rate": True}, TypeError, "learning_rate must be a number, not bool"),
        ({"soft_labels": SOFT.double()}, TypeError, "soft_labels must be a float32 tensor, not torch.float64"),
        ({"soft_labels": SOFT.tolist()}, TypeError, "soft_labels must be a float32 tensor, not list"),
        ({"soft_labels": SOFT[:3]}, ValueError, r"soft_labels must have the shape \[4, 2\], not \[3, 2\]"),
        ({"soft_labels": torch.ones(4, 3) / 3}, ValueError, r"soft_labels must have the shape \[4, 2\], not \[4, 3\]"),
        ({"soft_labels": SOFT.log_softmax(1)}, ValueError, "soft_labels must be probabilities: row 0 sums to -"),
        (
            {"soft_labels": SOFT.clone().index_fill_(0, torch.tensor([2]), torch.nan)},
            ValueError,
            "soft_labels must be probabilities: row 2 sums to nan",
        ),
        (
            {"soft_labels": torch.tensor([[1.5, -0.5]] * 4)},
            ValueError,
            "soft_labels must be probabilities: row 0 sums to 1, its least is -0.5",
        ),
        ({"zca": torch.eye(192)}, TypeError, "zca must be a Zca, not Tensor"),
        (
            {"zca": Zca(torch.zeros(5), torch.eye(5)), "metadata": WHITENED},
            ValueError,
            r"images \[4, 3, 8, 8\] do not fit a ZCA of 5 values",
        ),
        ({"zca": Zca(torch.zeros(192), torch.eye(192))}, ValueError, r"metadata mean must be 0 with zca, not \(0\.49"),
        (
            {"zca": Zca(torch.zeros(192), torch.eye(192)), "metadata": WHITENED | {"std": (1.0, 1.0, 2.0)}},
            ValueError,
            "metadata std must be 1 with zca",
        ),
        (
            {"images": torch.zeros(4, 3, 8, 8, dtype=torch.float64)},
            TypeError,
            "images must be float32, not torch.float64",
        ),
        ({"labels": torch.zeros(4)}, TypeError, "labels must be int64, not torch.float32"),
        ({"images": torch.zeros(4, 8, 8)}, ValueError, r"\[M, C, H, W\], not \[4, 8, 8\]"),
        ({"labels": torch.zeros(3, dtype=torch.int64)}, ValueError, r"labels must have the shape \[4\], not \[3\]"),
        ({"labels": torch.tensor([0, 1, 2, 0])}, ValueError, r"labels 0\.\.2 are outside 0\.\.1"),
        ({"metadata": {"mean": (0.5,) * 3}}, ValueError, "metadata needs class_names, std"),
        ({"metadata": METADATA | {"std": (1.0,)}}, ValueError, "metadata std needs 3 finite values, one a channel"),
        ({"metadata": METADATA | {"net": object()}}, TypeError, "metadata must be JSON-able"),
        ({"metadata": METADATA | {"loss": float("nan")}}, TypeError, "metadata must be JSON-able"),
    ],
)
def test_what_does_not_fit_is_refused(changes, error, message):
    with pytest.raises(error, match=message):
        synthetic(**changes)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"there is no synthetic set .*none\.safetensors"):
        SyntheticSet.load(tmp_path / "none.safetensors")


@pytest.mark.parametrize("content", [b"", b"hello", b"PK\x03\x04" + b"x" * 100, b"\x02" + b"\0" * 7 + b"[]"])
def test_another_kind_of_file_is_named(tmp_path, content):
    (tmp_path / "s").write_bytes(content)
    with pytest.raises(RuntimeError, match="s is not a safetensors file"):
        SyntheticSet.load(tmp_path / "s")


@pytest.mark.parametrize("keep", [60, -1])
def test_a_truncated_file_is_named(saved, keep):
    saved.write_bytes(saved.read_bytes()[:keep])
    with pytest.raises(RuntimeError, match=r"s\.safetensors is truncated"):
        SyntheticSet.load(saved)


@pytest.mark.parametrize("metadata", [None, {"format": "pt"}, {"fastdd": "{"}])
def test_anothers_safetensors_file_is_named(tmp_path, metadata):
    save_file({"weight": torch.zeros(2)}, tmp_path / "s", metadata=metadata)
    with pytest.raises(RuntimeError, match="is a safetensors file but not a synthetic set"):
        SyntheticSet.load(tmp_path / "s")


def test_a_newer_schema_is_told(tmp_path):
    save_file({"images": torch.zeros(2)}, tmp_path / "s", metadata={"fastdd": json.dumps({"schema": 4})})
    with pytest.raises(RuntimeError, match="has the schema 4, this version reads 1 and 2 and 3"):
        SyntheticSet.load(tmp_path / "s")


def test_a_set_without_labels_is_told(tmp_path):
    text = json.dumps(METADATA | {"schema": 1})
    save_file({"images": torch.zeros(1, 3, 2, 2)}, tmp_path / "s", metadata={"fastdd": text})
    with pytest.raises(RuntimeError, match="s is damaged: it has no 'labels'"):
        SyntheticSet.load(tmp_path / "s")
    save_file({"0.weight": torch.zeros(1)}, tmp_path / "net", metadata={"fastdd": text})
    with pytest.raises(RuntimeError, match="net is no synthetic set: it has no 'images'"):
        SyntheticSet.load(tmp_path / "net")


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"zca.mean": torch.zeros(192)}, "'zca.matrix'"),
        ({"zca.mean": torch.zeros(192), "zca.matrix": torch.zeros(3)}, "ZCA needs a mean"),
        ({"learning_rate": torch.zeros(2)}, "a Tensor with 2 elements"),
        ({"learning_rate": torch.tensor(torch.inf)}, "learning_rate must be finite"),
        ({"soft_labels": torch.zeros(4, 2)}, "soft_labels must be probabilities"),
    ],
)
def test_a_damaged_part_is_told(tmp_path, tensors, message):
    tensors |= {"images": synthetic().images, "labels": synthetic().labels}
    save_file(tensors, tmp_path / "s", metadata={"fastdd": json.dumps(METADATA | {"schema": 2})})
    with pytest.raises(RuntimeError, match=f"s is damaged: .*{message}"):
        SyntheticSet.load(tmp_path / "s")


def test_offsets_that_are_cut_short_are_told(tmp_path):
    synthetic().save(tmp_path / "s")
    content = (tmp_path / "s").read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    header["images"]["data_offsets"] = [0]
    text = json.dumps(header).encode()
    (tmp_path / "s").write_bytes(len(text).to_bytes(8, "little") + text + content[8 + length :])
    with pytest.raises(RuntimeError, match="s is not a safetensors file"):
        SyntheticSet.load(tmp_path / "s")


@settings(max_examples=200)
@given(st.data())
def test_a_damaged_header_is_one_line_or_harmless(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("damaged")
    synthetic(learning_rate=0.1, soft_labels=SOFT).save(folder / "s")
    content = bytearray((folder / "s").read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, 500))] = data.draw(st.integers(0, 255))
    (folder / "s").write_bytes(content)
    try:
        read = SyntheticSet.load(folder / "s")
        line = f"{folder / 's'} is sound"
        assert len(read.images) == len(read.labels)
    except RuntimeError as error:
        line = str(error)
    assert line.startswith(f"{folder / 's'} ")


class TestImagesThatHoldSeveral:
    """Multi-formation."""

    @staticmethod
    def made(side=8, **changes):
        images = torch.randn(4, 3, side, side, generator=torch.Generator().manual_seed(1))
        return synthetic(
            **{"images": images, "labels": torch.tensor([1, 0, 1, 0]), "metadata": METADATA | {"formation": 2}}
            | changes
        )

    @pytest.mark.parametrize("side", [8, 7])
    def test_networks_see_a_classs_first_parts_then_its_second(self, side):
        original = self.made(side, soft_labels=SOFT, learning_rate=0.5)
        seen = original.decoded()
        mean, std = (torch.tensor(METADATA[name]).view(-1, 1, 1) for name in ("mean", "std"))
        whole = torch.full((4, 3, 8, 8), 0.5)
        whole[:, :, :side, :side] = original.images * std + mean
        expected, rows = [], []
        for of_class in ([1, 3], [0, 2]):
            for top in (0, 4):
                for left in (0, 4):
                    for row in of_class:
                        part = whole[row : row + 1, :, top : top + 4, left : left + 4]
                        expected.append((interpolate(part, (side, side), mode="bilinear")[0] - mean) / std)
                        rows.append(row)
        torch.testing.assert_close(seen.images, torch.stack(expected), rtol=0, atol=1e-5)
        assert seen.labels.tolist() == [0] * 8 + [1] * 8
        assert torch.equal(seen.soft_labels, SOFT[rows])
        assert original.parts[:, 0].tolist() == rows
        assert (seen.formation, seen.learning_rate, "formation" in seen.metadata) == (1, 0.5, False)

    def test_the_file_says_it_and_earlier_versions_refuse_it(self, tmp_path):
        self.made().save(tmp_path / "s")
        read = SyntheticSet.load(tmp_path / "s")
        assert (read.formation, read.metadata["schema"]) == (2, 3)
        assert torch.equal(read.decoded().images, self.made().decoded().images)

    def test_without_it_an_image_is_what_networks_see(self):
        plain = synthetic()
        assert (plain.formation, plain.metadata["schema"]) == (1, 1)
        assert plain.decoded() is plain

    @pytest.mark.parametrize("factor", [0, 9, -2])
    def test_a_factor_that_images_do_not_have_is_told(self, factor):
        with pytest.raises(ValueError, match="formation must be 1 to 8: an image of 8 x 8 does not hold"):
            self.made(metadata=METADATA | {"formation": factor})

    def test_whitened_images_hold_no_others(self, zca):
        with pytest.raises(ValueError, match="formation and zca exclude"):
            self.made(metadata=WHITENED | {"formation": 2}, zca=zca)

    def test_another_type_is_told(self):
        with pytest.raises(TypeError, match="whole number, not '2'"):
            self.made(metadata=METADATA | {"formation": "2"})
