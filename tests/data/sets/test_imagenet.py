"""Tiny-ImageNet and the ImageNet subsets: layouts, classes, and gray or colour by the rule of CIFAR10-S."""

import io
import zipfile

import numpy as np
import pytest
from PIL import Image

from fastdd.data import build, load, options, published_counts
from fastdd.data.sets import builders
from fastdd.data.sets.imagenet import SUBSETS, tiny_imagenet_s

# The shared slice's classes are of Tiny-ImageNet; here, three of them.
WNIDS = ("n02056570", "n01443537", "n07747607")


def picture(path, colour, size=(64, 64), gray=False):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.broadcast_to(np.array(colour, np.uint8), (*size, 3))
    Image.fromarray(pixels).convert("L" if gray else "RGB").save(path, format="JPEG", quality=95)


@pytest.fixture
def tiny(tmp_path):
    """Three classes of 10 + 4; the red of a training image tells its number."""
    top = tmp_path / "tiny-imagenet-200"
    annotations = []
    for label, wnid in enumerate(WNIDS):
        for number in range(10):
            picture(top / f"train/{wnid}/images/{wnid}_{number}.JPEG", (20 * number, 60, 80 * label), gray=number == 3)
        (top / f"train/{wnid}/{wnid}_boxes.txt").write_text(f"{wnid}_0.JPEG\t0\t0\t1\t1\n")
        for number in range(4):
            # The validation images of all classes lie in one folder.
            name = f"val_{3 * number + label}.JPEG"
            picture(top / "val/images" / name, (50 * number, 0, 80 * label))
            annotations.append(f"{name}\t{wnid}\t0\t0\t63\t63\n")
    (top / "val/val_annotations.txt").write_text("".join(sorted(annotations)))
    (top / "wnids.txt").write_text("\n".join(WNIDS))
    (top / "words.txt").write_text(
        "n01443537\tgoldfish, Carassius auratus\nn02056570\tking penguin\nn99999999\tother\n"
    )
    return tmp_path


def test_tiny_imagenet(tiny):
    data = load("tiny-imagenet", tiny)
    assert data.class_names == ("goldfish", "king penguin", "n07747607")
    assert data.size == (64, 64)
    assert data.train.counts(3, 1).ravel().tolist() == [10] * 3
    assert data.test.counts(3, 1).ravel().tolist() == [4] * 3
    # The images of a class are those of its folder, and of its annotations.
    for split in (data.train, data.test):
        for label, wnid in enumerate(sorted(WNIDS)):
            blue = split.images[split.labels == label, 2].mean((1, 2))
            assert np.abs(np.median(blue) - 80 * WNIDS.index(wnid)) < 5
    assert data.mean == (0.485, 0.456, 0.406)
    assert data.provenance["remarks"] == ["3 of the 200 classes"]
    assert data.provenance["wnids"] == sorted(WNIDS)
    assert [file["file"] for file in data.provenance["files"]] == ["42 images", "words.txt", "val_annotations.txt"]
    assert load("tiny-imagenet", tiny / "tiny-imagenet-200").digest() == data.digest()
    assert load("tiny-imagenet", tiny.parent).digest() == data.digest()


def test_tiny_imagenet_in_its_zip_archive_or_with_sorted_validation_images(tiny, tmp_path_factory):
    expected = load("tiny-imagenet", tiny).digest()
    archive = tmp_path_factory.mktemp("zip") / "tiny-imagenet-200.zip"
    with zipfile.ZipFile(archive, "w") as file:
        for path in sorted(tiny.rglob("*")):
            if path.is_file():
                file.write(path, path.relative_to(tiny))
    assert load("tiny-imagenet", archive.parent).digest() == expected
    assert load("tiny-imagenet", archive).digest() == expected
    val = tiny / "tiny-imagenet-200/val"
    for line in (val / "val_annotations.txt").read_text().splitlines():
        name, wnid = line.split("\t")[:2]
        (val / "images" / wnid).mkdir(exist_ok=True)
        (val / "images" / name).rename(val / "images" / wnid / name)
    assert load("tiny-imagenet", tiny).digest() == expected


def test_tiny_imagenet_s_is_biased_as_cifar10_s(tiny):
    data = load("tiny-imagenet-s", tiny, bias_ratio=0.8)
    plain = load("tiny-imagenet", tiny)
    # One class is the first half of three.
    assert data.train.counts(3, 2).tolist() == [[8, 2], [2, 8], [2, 8]]
    assert data.test.counts(3, 2).tolist() == [[4, 4]] * 3
    gray = data.train.groups == 0
    assert (data.train.images[~gray] == plain.train.images[~gray]).all()
    luma = builders.luma(plain.train.images[gray])[:, None]
    assert (data.train.images[gray] == luma).all()
    n = len(plain.test)
    assert (data.test.images[:n] == builders.luma(plain.test.images)[:, None]).all()
    assert (data.test.images[n:] == plain.test.images).all()
    chosen = {"bias_ratio": 0.8, "seed": 0, "size": 64, "skip_corrupt": False}
    defaults = {name: value for name, value in options("tiny-imagenet-s").items() if value is not None}
    assert data.provenance["parameters"] == defaults | chosen
    assert data.provenance["builder"] == data.name == "tiny-imagenet-s"
    np.testing.assert_allclose(data.mean, data.train.images.mean((0, 2, 3)) / 255, rtol=1e-9)
    other = load("tiny-imagenet-s", tiny, bias_ratio=0.8, seed=1)
    assert (other.train.groups != data.train.groups).any()


def test_tiny_imagenet_that_is_not_whole(tiny):
    top = tiny / "tiny-imagenet-200"
    (top / "val/images/val_4.JPEG").unlink()
    with pytest.raises(FileNotFoundError, match=r"val/images/val_4\.JPEG is missing; val_annotations.txt names it"):
        load("tiny-imagenet", tiny)
    for image in (top / f"train/{WNIDS[0]}/images").iterdir():
        image.unlink()
    with pytest.raises(ValueError, match=rf"train/{WNIDS[0]}/images has no images"):
        load("tiny-imagenet", tiny)
    (top / "train").rename(top / "training")
    with pytest.raises(FileNotFoundError, match=r"Tiny-ImageNet: tiny-imagenet-200 \(train/.* offered at http"):
        load("tiny-imagenet", tiny)
    with pytest.raises(FileNotFoundError, match="Tiny-ImageNet needs its files: give the folder that holds"):
        load("tiny-imagenet")
    with pytest.raises(FileNotFoundError, match=r"the data root .*nowhere does not exist"):
        load("tiny-imagenet", tiny / "nowhere")


def imagenet(root, wnids, train=10, val=4):
    for label, wnid in enumerate(wnids):
        for split, count in (("train", train), ("val", val)):
            for number in range(count):
                picture(root / split / wnid / f"{number}.JPEG", (20 * number, 4 * label, 128), size=(20, 30))
    return root


def test_the_six_subsets_are_ten_classes_each_in_published_order(tmp_path):
    assert all(len(classes) == 10 for classes in SUBSETS.values())
    wnids = sorted({wnid for classes in SUBSETS.values() for wnid in classes})
    imagenet(tmp_path / "imagenet", wnids, train=2, val=1)
    for name, classes in SUBSETS.items():
        data = load(name, tmp_path, size=16)
        assert data.class_names == tuple(classes.values())
        # The green of an image tells its class, to what JPEG leaves of it.
        green = data.train.images[::2, 1].mean((1, 2))
        assert (np.round(green / 4) == [wnids.index(wnid) for wnid in classes]).all()
        assert options(name) == {"size": 128, "skip_corrupt": False, "val_split": 0.0, "validation": None}


def test_a_subset_s(tmp_path):
    imagenet(tmp_path, SUBSETS["imagemeow"])
    data = load("imagemeow-s", tmp_path, size=16)
    assert data.train.counts(10, 2).tolist() == [[9, 1]] * 5 + [[1, 9]] * 5
    assert data.test.counts(10, 2).tolist() == [[4, 4]] * 10
    assert data.size == (16, 16)
    assert build("imagemeow-s", tmp_path / "store", tmp_path, options={"size": 16}).digest() == data.digest()


def test_a_folder_that_has_all_classes_is_preferred_to_one_that_has_some(tmp_path):
    imagenet(tmp_path / "a", SUBSETS["imagefruit"], train=1, val=1)
    imagenet(tmp_path / "b", SUBSETS["imageyellow"], train=2, val=1)
    assert len(load("imageyellow", tmp_path, size=4).train) == 20


def test_a_subset_that_is_not_whole(tmp_path):
    imagenet(tmp_path, list(SUBSETS["imagefruit"])[:8], train=1, val=1)
    with pytest.raises(
        FileNotFoundError, match=r"imagefruit: no images of n07718472, n07742313 in .*train; offered at"
    ):
        load("imagefruit", tmp_path)
    with pytest.raises(FileNotFoundError, match="imagewoof: train/<wnid> and val/<wnid>"):
        load("imagewoof", tmp_path)
    flat = tmp_path / "flat"
    imagenet(flat, SUBSETS["imagefruit"], train=1, val=0)
    picture(flat / "val/ILSVRC2012_val_00000001.JPEG", (1, 2, 3))
    with pytest.raises(FileNotFoundError, match="its images must be sorted into folders by class"):
        load("imagefruit", flat)


def test_published_counts():
    assert published_counts("tiny-imagenet-s", {"bias_ratio": 0.8, "size": None}) == (100_000, 20_000)
    assert published_counts("imagenette", {}) is None
    assert published_counts("celeba", {"target": "Young"}) is None
    assert published_counts("utkface", {"bias_ratio": 0.99}) is None


@pytest.mark.realdata
def test_the_slice_of_tiny_imagenet(data_root):
    plan = tiny_imagenet_s(data_root / "tiny_imagenet_20")
    assert (len(plan.train), len(plan.test)) == (10_000, 2_000)
    for rows, expected in (
        (plan.train, [[450, 50]] * 10 + [[50, 450]] * 10),
        (plan.test, [[50, 50]] * 20),
    ):
        assert np.bincount(rows.labels * 2 + rows.groups).reshape(20, 2).tolist() == expected
    assert plan.class_names[:2] == ("goldfish", "king penguin")
    assert plan.remarks == ("20 of the 200 classes",)
    images = np.concatenate([part.done.images for part in plan.decoded("test")])
    assert (images[:1000] == builders.luma(images[1000:])[:, None]).all()


@pytest.mark.realdata
def test_the_slice_of_imagenette(data_root, tmp_path):
    data = build("imagenette-s", tmp_path / "s", data_root / "imagenette_small", options={"size": 32}, workers=2)
    assert data.train.counts(10, 2).tolist() == [[90, 10]] * 5 + [[10, 90]] * 5
    assert data.test.counts(10, 2).tolist() == [[40, 40]] * 10
    # What Pillow makes of one of them, by the published rule.
    content = (data_root / "imagenette_small/val/n01440764/ILSVRC2012_val_00009111.JPEG").read_bytes()
    image = Image.open(io.BytesIO(content)).convert("RGB")
    width, height = (max(32, round(32 * side / min(image.size))) for side in image.size)
    left, top = (width - 32) // 2, (height - 32) // 2
    image = image.resize((width, height), Image.Resampling.BILINEAR).crop((left, top, left + 32, top + 32))
    assert (data.test.images[400:] == np.asarray(image).transpose(2, 0, 1)).all((1, 2, 3)).sum() == 1
