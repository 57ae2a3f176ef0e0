"""Faces and animals on small files in the publishers' layouts: labels, groups, splits, and what is missing."""

import zipfile

import numpy as np
import pytest
from PIL import Image

from fastdd.data import load

ATTRIBUTES = ("Attractive", "Male", "Pale_Skin", "Wearing_Necktie", "Young")


def picture(path, shade, size=(8, 8)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((*size, 3), shade, np.uint8)).save(path)


def celeba_line(number, name):
    """Attributes of image ``number``: the bits of it, but Male where there is none of one cell."""
    return f"{name} {' '.join('1' if number >> bit & 1 else '-1' for bit in range(len(ATTRIBUTES)))}"


@pytest.fixture
def celeba(tmp_path):
    """64 training images, 32 for validation, 40 for the test: image n has the attributes of n's bits."""
    root = tmp_path / "celeba"
    names = [f"{number + 1:06}.jpg" for number in range(136)]
    lines = [celeba_line(number, name) for number, name in enumerate(names)]
    (root / "img_align_celeba").mkdir(parents=True)
    for number, name in enumerate(names):
        picture(root / "img_align_celeba" / name, number, (218, 178))
    (root / "list_attr_celeba.txt").write_text("\n".join(["136", " ".join(ATTRIBUTES), *lines, ""]))
    parts = [0] * 64 + [1] * 32 + [2] * 40
    (root / "list_eval_partition.txt").write_text(
        "".join(f"{name} {part}\n" for name, part in zip(names, parts, strict=True))
    )
    return tmp_path


def test_celeba(celeba):
    data = load("celeba", celeba)
    assert data.size == (64, 64)
    assert data.class_names == ("not Attractive", "Attractive")
    assert data.group_names == ("not Male", "Male")
    # Pixels tell the image, whose number tells its attributes.
    for split in (data.train, data.test):
        numbers = np.round(split.images.mean((1, 2, 3))).astype(int)
        assert (split.labels == numbers & 1).all()
        assert (split.groups == numbers >> 1 & 1).all()
        assert (np.diff(numbers) > 0).all()
    assert data.train.counts(2, 2).tolist() == [[16, 16], [16, 16]]
    assert data.test.counts(2, 2).tolist() == [[10, 10], [10, 10]]
    assert data.mean == (0.5063, 0.4258, 0.3832)
    told = {file["file"]: file.get("as_published") for file in data.provenance["files"][1:]}
    assert told == {"list_attr_celeba.txt": False, "list_eval_partition.txt": False}


def test_celeba_of_other_attributes_and_intersections(celeba):
    swapped = load("celeba", celeba, target="male", protected="attractive", size=8)
    assert swapped.class_names == ("not Male", "Male")
    assert swapped.group_names == ("not Attractive", "Attractive")
    both = load("celeba", celeba, protected="Male+Pale_Skin", size=8)
    assert both.group_names == (
        "not Male, not Pale_Skin",
        "not Male, Pale_Skin",
        "Male, not Pale_Skin",
        "Male, Pale_Skin",
    )
    numbers = np.round(both.train.images.mean((1, 2, 3))).astype(int)
    assert (both.train.groups == 2 * (numbers >> 1 & 1) + (numbers >> 2 & 1)).all()
    assert both.test.counts(2, 4).tolist() == [[5] * 4] * 2


def test_celeba_cells_are_cut_down_to_the_smallest(celeba):
    # Four men fewer in the test set, and two in training.
    lines = (celeba / "celeba/list_attr_celeba.txt").read_text().splitlines()
    for number in (3, 7, 99, 103, 107, 111):
        lines[number + 2] = celeba_line(number & ~2, f"{number + 1:06}.jpg")
    (celeba / "celeba/list_attr_celeba.txt").write_text("\n".join(lines))
    data = load("celeba", celeba, size=8)
    assert data.train.counts(2, 2).tolist() == [[16, 16], [18, 14]]
    assert data.test.counts(2, 2).tolist() == [[6, 6], [6, 6]]
    assert load("celeba", celeba, size=8, balanced=True).train.counts(2, 2).tolist() == [[14, 14], [14, 14]]
    other = load("celeba", celeba, size=8, seed=1)
    assert other.digest() != data.digest()
    assert load("celeba", celeba, size=8).digest() == data.digest()


def test_celeba_in_its_zip_archive(celeba):
    expected = load("celeba", celeba, size=8).digest()
    folder = celeba / "celeba/img_align_celeba"
    with zipfile.ZipFile(celeba / "celeba/img_align_celeba.zip", "w") as archive:
        for image in sorted(folder.iterdir()):
            archive.write(image, f"img_align_celeba/{image.name}")
    folder.rename(celeba / "elsewhere")
    assert load("celeba", celeba, size=8).digest() == expected


def test_celeba_that_does_not_fit(celeba):
    with pytest.raises(ValueError, match=r"no attribute 'Yuong'; did you mean Young\? \(one of: Attractive, Male"):
        load("celeba", celeba, target="Yuong")
    with pytest.raises(ValueError, match="target 'Male' and protected 'Male' name an attribute twice"):
        load("celeba", celeba, target="Male")
    with pytest.raises(ValueError, match="target of celeba must be a word, not 2"):
        load("celeba", celeba, target=2)
    root = celeba / "celeba"
    (root / "img_align_celeba/000100.jpg").unlink()
    with pytest.raises(FileNotFoundError, match=r"CelebA: .*000100\.jpg is missing; offered at http"):
        load("celeba", celeba)
    text = (root / "list_attr_celeba.txt").read_text()
    (root / "list_attr_celeba.txt").write_text(text.replace("000003.jpg -1", "000003.jpg"))
    with pytest.raises(RuntimeError, match=r"list_attr_celeba\.txt, line 5: not an image and 5 times -1 or 1"):
        load("celeba", celeba)
    (root / "list_attr_celeba.txt").write_text(text.replace("136\n", "137\n", 1))
    with pytest.raises(RuntimeError, match="it has 136 images, its first line says otherwise"):
        load("celeba", celeba)
    (root / "list_attr_celeba.txt").unlink()
    with pytest.raises(FileNotFoundError, match=r"CelebA: img_align_celeba/, list_attr_celeba.txt and list_eval"):
        load("celeba", celeba)


@pytest.fixture
def celeba_hq(tmp_path):
    """Images 0 to 59: 40 from CelebA's training split, 10 from its validation and 10 from its test split."""
    root = tmp_path / "CelebAMask-HQ"
    names = [f"{number}.jpg" for number in range(60)]
    # Odd ones smile; men are those that do not, but for every fourth image.
    attributes = [
        f"{name}  {'1' if n % 2 else '-1'} {'1' if (n % 2 == 0) == (n // 2 % 4 != 0) else '-1'}"
        for n, name in enumerate(names)
    ]
    (root / "CelebA-HQ-img").mkdir(parents=True)
    for number, name in enumerate(names):
        picture(root / "CelebA-HQ-img" / name, 4 * number, (16, 16))
    (root / "CelebAMask-HQ-attribute-anno.txt").write_text("\n".join(["60", "Smiling Male", *attributes]))
    original = [*range(1000, 1040), *range(162_770, 162_780), *range(182_637, 182_647)]
    lines = [f"{number}\t\t{index}\t{index + 1:06}.jpg" for number, index in enumerate(original)]
    (root / "CelebA-HQ-to-CelebA-mapping.txt").write_text("\n".join(["idx\torig_idx\torig_file", *lines]))
    return tmp_path


def test_celeba_hq(celeba_hq):
    data = load("celeba-hq", celeba_hq, size=8)
    assert (len(data.train), len(data.test)) == (40, 10)
    assert data.train.counts(2, 2).tolist() == [[5, 15], [15, 5]]
    assert (np.round(data.test.images.mean((1, 2, 3)) / 4) == np.arange(50, 60)).all()
    biased = load("celeba-hq", celeba_hq, size=8, bias_ratio=0.95)
    assert biased.train.counts(2, 2).tolist() == [[1, 15], [15, 1]]
    assert biased.test.images.tolist() == data.test.images.tolist()
    (celeba_hq / "CelebAMask-HQ/CelebA-HQ-to-CelebA-mapping.txt").write_text("idx orig_idx orig_file\n0 1")
    with pytest.raises(RuntimeError, match=r"mapping\.txt, line 2: not an index, CelebA's index and CelebA's file"):
        load("celeba-hq", celeba_hq)


@pytest.fixture
def utkface(tmp_path, monkeypatch):
    """Of every age (10, 30, 50), gender and race (0 to 3) five images; two of race 4; two with other names.

    Of a cell, 3 images are tested on, where the publisher's are enough for 100.
    """
    monkeypatch.setattr("fastdd.data.sets.utkface._TESTED", 3)
    root = tmp_path / "UTKFace"
    for age in (10, 30, 50):
        for gender in (0, 1):
            for race in range(4):
                for number in range(5):
                    picture(root / f"{age}_{gender}_{race}_2017{number}.png", age + 100 * gender + 10 * race, (20, 20))
    for name in ("30_0_4_20170.jpg", "50_1_4_20170.jpg", "61_1_20170109.jpg", "notes.jpg"):
        picture(root / name, 0)
    return tmp_path


def test_utkface(utkface):
    data = load("utkface", utkface)
    assert data.class_names == ("below 20", "20 to 39", "40 and above")
    assert data.group_names == ("White", "Black", "Asian", "Indian")
    assert data.test.counts(3, 4).tolist() == [[3] * 4] * 3
    assert data.train.counts(3, 4).tolist() == [[7] * 4] * 3
    for split in (data.train, data.test):
        shades = split.images.mean((1, 2, 3)) % 100
        assert (shades == 10 + 20 * split.labels + 10 * split.groups).all()
    assert data.provenance["remarks"] == ["4 images of race 4 or with another name are left out"]
    assert data.size == (64, 64)
    assert data.mean[0] == 0.6135867892520825


def test_utkface_by_gender(utkface):
    for number in range(30):
        picture(utkface / f"UTKFace/15_1_0_3017{number}.png", 99, (20, 20))
    options = {"target": "gender", "protected": "age", "size": 8}
    data = load("utkface", utkface, **options)
    assert data.class_names == ("male", "female")
    assert data.group_names == ("below 20", "20 to 39", "40 and above")
    assert data.test.counts(2, 3).tolist() == [[3] * 3] * 2
    assert data.train.counts(2, 3).tolist() == [[17, 17, 17], [47, 17, 17]]
    biased = load("utkface", utkface, **options, bias_ratio=0.8)
    assert biased.test.images.tolist() == data.test.images.tolist()
    # Of 47 women below 20, 80 %, so 12 others, six of each age.
    assert biased.train.counts(2, 3)[1].tolist() == [47, 6, 6]


def test_utkface_that_does_not_fit(utkface):
    with pytest.raises(ValueError, match="target of utkface must be one of age, gender, race, not 'height'"):
        load("utkface", utkface, target="height")
    with pytest.raises(ValueError, match="target and protected of utkface are both 'race'"):
        load("utkface", utkface, target="race")
    (utkface / "deep/er").mkdir(parents=True)
    (utkface / "UTKFace").rename(utkface / "deep/er/faces-of-utk")
    assert load("utkface", utkface / "deep/er/faces-of-utk", size=8).num_groups == 4
    assert load("utkface", utkface / "deep/er", size=8).num_groups == 4
    with pytest.raises(FileNotFoundError, match=r"UTKFace: UTKFace/\*\.jpg not found in .*; offered at https"):
        load("utkface", utkface)


@pytest.fixture
def bffhq(tmp_path):
    root = tmp_path / "bffhq"
    for age in (0, 1):
        for number in range(9):
            picture(root / f"0.5pct/align/{age}/{number}_{age}_{age}.png", 100 * age)
        picture(root / f"0.5pct/conflict/{age}/9_{age}_{1 - age}.png", 100 * age + 50)
        for gender in (0, 1):
            picture(root / f"test/{age}{gender}_{age}_{gender}.png", 100 * age + 50 * gender)
    return tmp_path


def test_bffhq(bffhq):
    data = load("bffhq", bffhq)
    assert data.train.counts(2, 2).tolist() == [[9, 1], [1, 9]]
    assert data.test.counts(2, 2).tolist() == [[1, 1], [1, 1]]
    assert (data.class_names, data.group_names) == (("young", "old"), ("female", "male"))
    assert data.mean == (0.4914, 0.4822, 0.4465)
    shades = data.test.images.mean((1, 2, 3))
    assert shades.tolist() == (100 * data.test.labels + 50 * data.test.groups).tolist()
    with pytest.raises(FileNotFoundError, match="BFFHQ: 2pct/align, 2pct/conflict and test not found in"):
        load("bffhq", bffhq, conflict="2pct")
    picture(bffhq / "bffhq/test/7_2_0.png", 0)
    with pytest.raises(RuntimeError, match=r"test/7_2_0\.png is not named \*_<age>_<gender>\.png, each 0 or 1"):
        load("bffhq", bffhq)


@pytest.fixture
def spuco(tmp_path):
    parts = (
        ("spuco_birds", ("landbirds", "waterbirds"), ("land", "water")),
        ("spuco_dogs", ("small_dogs", "big_dogs"), ("indoor", "outdoor")),
    )
    shade = 0
    for part, classes, groups in parts:
        for i, name in enumerate(classes):
            for j, group in enumerate(groups):
                for split, count in (("train", 20 if i == j else 2), ("val", 1), ("test", 2)):
                    for number in range(count):
                        picture(tmp_path / part / split / name / group / f"{number}.jpg", shade)
                shade += 20
    return tmp_path


def test_spuco_animals(spuco):
    data = load("spuco-animals", spuco, size=8)
    assert data.train.counts(4, 4).tolist() == [[20, 2, 0, 0], [2, 20, 0, 0], [0, 0, 20, 2], [0, 0, 2, 20]]
    assert data.test.counts(4, 4).sum() == 16
    shades = {0: 0, 1: 20, 4: 40, 5: 60, 10: 80, 11: 100, 14: 120, 15: 140}
    cells = data.test.labels * 4 + data.test.groups
    assert np.round(data.test.images.mean((1, 2, 3))).tolist() == [shades[cell] for cell in cells.tolist()]
    biased = load("spuco-animals", spuco, size=8, bias_ratio=0.95)
    assert biased.train.counts(4, 4).diagonal().tolist() == [20] * 4
    assert biased.train.counts(4, 4).sum() == 84
    (spuco / "spuco_dogs/test/big_dogs/indoor").rename(spuco / "gone")
    with pytest.raises(FileNotFoundError, match=r"no images in .*spuco_dogs/test/big_dogs/indoor; offered at"):
        load("spuco-animals", spuco)
