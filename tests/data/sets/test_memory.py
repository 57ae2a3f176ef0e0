"""Data sets of arrays, of PyTorch's data sets, of tar shards: the same pixels, classes and groups as they came."""

import io
import tarfile

import numpy as np
import pytest
import torch
from PIL import Image

from fastdd.data import Dataset
from fastdd.data.initial import random_set

PIXELS = np.random.default_rng(0).integers(0, 256, (40, 3, 6, 5), dtype=np.uint8)
LABELS = np.arange(40) % 4
GROUPS = np.arange(40) // 4 % 2


def rows_of(data: Dataset) -> np.ndarray:
    """Where every image of training, then test, was."""
    every = np.concatenate([data.train.images, data.test.images])
    return np.array([int(np.flatnonzero((image == PIXELS).all((1, 2, 3)))[0]) for image in every])


@pytest.mark.parametrize(
    "images",
    [
        PIXELS,
        PIXELS.transpose(0, 2, 3, 1),
        torch.from_numpy(PIXELS),
        PIXELS.astype(np.float32) / 255,
        torch.from_numpy(PIXELS).double() / 255,
        PIXELS.astype(np.float32),
        PIXELS.astype(np.int64).transpose(0, 2, 3, 1),
    ],
)
def test_arrays_of_any_layout_and_type_are_the_same_pixels(images):
    data = Dataset.from_arrays(images, LABELS, GROUPS, name="mine")
    assert (data.name, data.size, data.class_names, data.group_names) == ("mine", (6, 5), tuple("0123"), ("0", "1"))
    rows = rows_of(data)
    assert sorted(rows) == list(range(40))
    for split, of in ((data.train, rows[:32]), (data.test, rows[32:])):
        assert (split.labels == LABELS[of]).all()
        assert (split.groups == GROUPS[of]).all()
    assert data.test.counts(4, 2).tolist() == [[1, 1]] * 4
    assert np.allclose(data.mean, data.train.images.mean((0, 2, 3)) / 255)


def test_every_split_keeps_its_pixels_whatever_the_others_are():
    as_floats, as_numbers = PIXELS.astype(np.float32) / 255, PIXELS.astype(np.int64)
    for train, test, validation in ((PIXELS, as_floats, as_numbers), (as_numbers, PIXELS, as_floats)):
        of_splits = {"test": (test, LABELS), "validation": (validation, LABELS)}
        data = Dataset.from_arrays(train, LABELS, **of_splits)
        assert all((split.images == PIXELS).all() for split in data.splits.values())
    data = Dataset.from_torch(Items("pillow"), Items("tensor"))
    assert (data.test.images == data.train.images).all()


def test_constants_of_any_numbers_go_into_a_set():
    for mean, std in ((np.full(3, 0.5, np.float32), np.full(3, 0.25, np.float32)), ([0, 0, 0], (1, 1, 1))):
        data = Dataset.from_arrays(PIXELS, LABELS, mean=mean, std=std)
        assert (data.mean, data.std) == (tuple(map(float, mean)), tuple(map(float, std)))
        assert random_set(data, 1).metadata["std"] == list(map(float, std))
    data = Dataset.from_arrays(PIXELS, LABELS, mean=np.full(3, 0.5))
    assert data.mean == (0.5,) * 3
    assert np.allclose(data.std, data.train.images.std((0, 2, 3)) / 255)


def test_words_gray_images_and_splits_that_are_given():
    gray, words = PIXELS[:, 0], np.array(["b", "10", "9"])[np.arange(40) % 3]
    data = Dataset.from_arrays(gray, words, test=(gray[:5], words[:5]), validation=(gray[5:9], words[5:9]))
    assert (data.channels, data.class_names) == (1, ("10", "9", "b"))
    assert [len(split) for split in data.splits.values()] == [40, 5, 4]
    assert data.test.labels.tolist() == [2, 0, 1, 2, 0]
    ordered = Dataset.from_arrays(gray, words, class_names=("b", "9", "10"))
    assert ordered.train.labels.tolist() != data.train.labels.tolist()[:32]


@pytest.mark.parametrize(
    ("images", "more", "message"),
    [
        (PIXELS[:, :, :, :3], {}, "both ends can be channels; give layout="),
        (PIXELS[:, :2], {}, "neither end is 1, 3 or 4 channels; give layout="),
        (PIXELS[0, 0], {}, r"not \[6, 5\]"),
        (PIXELS / 255.0 - 0.5, {}, "they look normalised: give pixels"),
        (PIXELS.astype(np.uint16) * 256, {}, r"uint16 of 0 to 65280, .*; scale them to 8 bits"),
        (np.full((40, 3, 4, 5), np.nan), {}, "not finite"),
        (PIXELS / 240.0, {}, r"floats up to 1\.0625 are neither of 0 to 1 nor of 0 to 255"),
        (PIXELS / 255.0, {"test": (PIXELS * 2.0, LABELS)}, "test images are float64 of 0 to 510"),
        (PIXELS, {"test": (PIXELS, LABELS.astype(str))}, "labels are words in some splits and numbers in others"),
        (PIXELS, {"test_split": 0.0}, "leaves none on one side"),
        (PIXELS, {"layout": "CHWN"}, "layout must be NCHW or NHWC"),
        (PIXELS, {"test": (PIXELS, LABELS), "test_split": 0.1}, "leave one of them out"),
        (PIXELS, {"test": (PIXELS, LABELS[:3])}, r"test labels must be \[40\]"),
        (PIXELS, {"test": (PIXELS, LABELS, GROUPS)}, "groups are given of some splits"),
    ],
)
def test_arrays_that_are_no_data_set_are_refused_in_a_line(images, more, message):
    with pytest.raises(ValueError, match=message) as told:
        Dataset.from_arrays(images, LABELS, **more)
    assert "\n" not in str(told.value)


class Items(torch.utils.data.Dataset):
    """Items of a kind; every third with another size where that is asked for."""

    classes = ("a", "b", "c", "d")

    def __init__(self, kind, groups=False, sizes=False):
        self.kind, self.groups, self.sizes = kind, groups, sizes

    def __len__(self):
        return 40

    def __getitem__(self, row):
        image = PIXELS[row].transpose(1, 2, 0)
        image = image.repeat(2, 0) if self.sizes and row % 3 == 0 else image
        kinds = {
            "pillow": Image.fromarray,
            "array": lambda x: x,
            "tensor": lambda x: torch.tensor(x).permute(2, 0, 1) / 255,
        }
        return (kinds[self.kind](image), int(LABELS[row]), *([int(GROUPS[row])] if self.groups else []))


@pytest.mark.parametrize("kind", ["pillow", "array", "tensor"])
@pytest.mark.parametrize("groups", [False, True])
def test_data_sets_of_pytorch(kind, groups):
    data = Dataset.from_torch(Items(kind, groups), name="mine")
    assert (data.name, data.class_names, data.num_groups) == ("mine", Items.classes, 1 + groups)
    rows = rows_of(data)
    assert (np.concatenate([data.train.labels, data.test.labels]) == LABELS[rows]).all()
    assert len(Dataset.from_torch(Items(kind), Items(kind)).test) == 40


class Stream(torch.utils.data.IterableDataset):
    """Items of a data set one after the other, and how many they are."""

    def __iter__(self):
        items = Items("array")
        return (items[row] for row in range(len(items)))

    def __len__(self):
        return 40


def test_data_sets_that_are_iterated_over():
    data = Dataset.from_torch(Stream(), Items("array"))
    assert (data.train.images == PIXELS).all()
    assert (data.train.labels == LABELS).all()


def test_pictures_of_several_sizes_need_one():
    with pytest.raises(ValueError, match=r"item 1 is .*, item 0 .*: give size="):
        Dataset.from_torch(Items("pillow", sizes=True))
    assert Dataset.from_torch(Items("pillow", sizes=True), size=4).size == (4, 4)
    for wrong in (5, [(1, 2, 3, 4)]):
        with pytest.raises(TypeError, match="not"):
            Dataset.from_torch(wrong)


def shard(path, rows, members):
    """A tar file of samples; ``members(row)`` gives suffix and content beside the image."""
    with tarfile.open(path, "w") as archive:
        for row in rows:
            file = io.BytesIO()
            Image.fromarray(PIXELS[row].transpose(1, 2, 0)[:5]).save(file, "PNG")
            for suffix, content in {"png": file.getvalue(), **members(row)}.items():
                info = tarfile.TarInfo(f"some/{row:04d}.{suffix}")
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))


def test_shards_with_classes_in_cls_and_json(tmp_path):
    shard(tmp_path / "train-0.tar", range(20), lambda row: {"cls": str(LABELS[row]).encode()})
    shard(tmp_path / "train-1.tar", range(20, 30), lambda row: {"cls": str(LABELS[row]).encode()})
    shard(tmp_path / "test-0.tar", range(30, 40), lambda row: {"cls": str(LABELS[row]).encode()})
    data = Dataset.from_webdataset(tmp_path, size=5)
    assert [len(split) for split in data.splits.values()] == [30, 10]
    assert (data.train.images == PIXELS[:30, :, :5]).all()
    assert (data.test.labels == LABELS[30:]).all()
    again = Dataset.from_webdataset(str(tmp_path / "train-*.tar"), tmp_path / "test-0.tar", size=5)
    assert again.digest() == data.digest()
    words = tmp_path / "words.tar"
    shard(words, range(40), lambda row: {"json": b'{"kind": "k%d", "sex": "s%d"}' % (LABELS[row], GROUPS[row])})
    named = Dataset.from_webdataset(words, size=5, label="kind", group="sex")
    assert (named.class_names, named.group_names, len(named.test)) == (("k0", "k1", "k2", "k3"), ("s0", "s1"), 8)


def test_a_folder_of_shards_without_train_leaves_out_what_is_held_out(tmp_path):
    for name, rows in {"data": range(20), "test": range(20, 30), "val": range(30, 40)}.items():
        shard(tmp_path / f"{name}-0.tar", rows, lambda row: {"cls": str(LABELS[row]).encode()})
    data = Dataset.from_webdataset(tmp_path, size=5)
    assert (data.train.images == PIXELS[:20, :, :5]).all()
    assert (data.test.images == PIXELS[20:30, :, :5]).all()
    assert (data.validation.images == PIXELS[30:, :, :5]).all()


@pytest.mark.parametrize("names", [("shards/train-0", "shards/test-0"), ("all/train/0", "all/test/0")])
def test_the_split_of_a_shard_in_a_folder_of_any_name(tmp_path, names):
    for name, rows in zip(names, (range(30), range(30, 40)), strict=True):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shard(tmp_path / f"{name}.tar", rows, lambda row: {"cls": str(LABELS[row]).encode()})
    data = Dataset.from_webdataset(tmp_path, size=5)
    assert (data.train.images == PIXELS[:30, :, :5]).all()
    assert (data.test.images == PIXELS[30:, :, :5]).all()


def png(pixels):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def test_the_image_of_a_sample_is_none_of_what_else_it_has(tmp_path):
    """A mask before it and after it, a field of its name, and hidden files of another system."""
    white = png(np.full((5, 5, 3), 255, np.uint8))
    for name in ("depth", "mask"):  # sorted, one comes before png, the other after
        others = {f"{name}.png": white, "json": b'{"image": "0.png", "cls": 1}'}
        shard(tmp_path / f"{name}.tar", range(8), lambda row, others=others: others)
    with tarfile.open(tmp_path / "before.tar", "w") as archive, tarfile.open(tmp_path / "depth.tar") as other:
        for member in sorted(other, key=lambda member: member.name):
            hidden = tarfile.TarInfo(member.name.replace("some/", "some/._"))
            archive.addfile(hidden)
            archive.addfile(member, other.extractfile(member))
    for name in ("mask", "depth", "before"):
        data = Dataset.from_webdataset(tmp_path / f"{name}.tar", tmp_path / f"{name}.tar", size=5)
        assert (data.train.images == PIXELS[:8, :, :5]).all()
        assert data.class_names == ("1",)
    shard(tmp_path / "two.tar", range(4), lambda row: {"jpg": white, "cls": b"0"})
    with pytest.raises(ValueError, match=r"two\.tar: some/0000 has the images png, jpg: leave one of them"):
        Dataset.from_webdataset(tmp_path / "two.tar")


def test_shards_that_are_damaged_or_lack_fields(tmp_path):
    shard(tmp_path / "a.tar", range(4), lambda row: {"json": b'{"kind": 1}'})
    with pytest.raises(ValueError, match=r"a\.tar: some/0000 has no cls or label, but kind: name its field, label="):
        Dataset.from_webdataset(tmp_path / "a.tar")
    (tmp_path / "b.tar").write_bytes(b"nonsense")
    with pytest.raises(RuntimeError, match=r"b\.tar is no tar archive of samples, or damaged"):
        Dataset.from_webdataset(tmp_path / "b.tar")
    with pytest.raises(FileNotFoundError, match="there is no shard"):
        Dataset.from_webdataset(tmp_path / "c.tar")


@pytest.mark.full
def test_data_sets_of_hugging_face(tmp_path):
    datasets = pytest.importorskip("datasets")
    features = datasets.Features(
        {"picture": datasets.Image(), "kind": datasets.ClassLabel(names=list("abcd")), "sex": datasets.Value("string")}
    )
    images = [Image.fromarray(image.transpose(1, 2, 0)[:5]) for image in PIXELS]
    columns = {"picture": images, "kind": LABELS.tolist(), "sex": [f"s{group}" for group in GROUPS]}
    table = datasets.Dataset.from_dict(columns, features=features)
    data = Dataset.from_huggingface(table, size=5, group="sex", name="hub")
    assert (data.name, data.class_names, data.group_names) == ("hub", tuple("abcd"), ("s0", "s1"))
    assert len(data.train) == 32
    table.to_parquet(tmp_path / "data.parquet")
    assert Dataset.from_huggingface(tmp_path / "data.parquet", size=5, group="sex").digest() == data.digest()
    table.save_to_disk(tmp_path / "disk")
    assert Dataset.from_huggingface(tmp_path / "disk", size=5, group="sex").digest() == data.digest()
    for number, place in enumerate(("data/{}-00000-of-00001", "plain_text/{}-00000-of-00001", "default/{}/0000")):
        for part, rows in (("train", range(40)), ("test", range(8))):
            file = tmp_path / f"hub-{number}" / f"{place.format(part)}.parquet"
            file.parent.mkdir(parents=True, exist_ok=True)
            table.select(rows).to_parquet(file)
        split = Dataset.from_huggingface(tmp_path / f"hub-{number}", size=5)
        assert (split.train.images == PIXELS[:, :, :5]).all()
        assert (split.test.labels == LABELS[:8]).all()
    splits = {"train": table, "test": table.select(range(8)), "validation": table.select(range(8, 12))}
    on_test = Dataset.from_huggingface(splits, size=5)
    assert [len(split) for split in on_test.splits.values()] == [40, 8, 4]
    # What is tested on is not what is chosen by.
    for on_validation in ({"test": "validation"}, {}):
        given = splits if on_validation else {name: splits[name] for name in ("train", "validation")}
        data = Dataset.from_huggingface(given, size=5, **on_validation)
        assert (data.test.images == PIXELS[8:12, :, :5]).all()
        assert data.validation is None
    with pytest.raises(ValueError, match="there is no column 'x'"):
        Dataset.from_huggingface(table, label="x")
    # A file that does not say that its bytes are images.
    import pyarrow.parquet

    bare = pyarrow.parquet.read_table(tmp_path / "data.parquet").replace_schema_metadata(None)
    pyarrow.parquet.write_table(bare, tmp_path / "bare.parquet")
    bare = Dataset.from_huggingface(tmp_path / "bare.parquet", size=5, label="kind")
    assert (np.concatenate([bare.train.images, bare.test.images]).sum()) == PIXELS[:, :, :5].sum(dtype=np.int64)
