"""From Fake to Real's splits and levels: the published numbers of images, and what each set takes of them."""

import pickle

import numpy as np
import pytest

from fastdd.data import build, check_store, load, save_store
from fastdd.data.files.plan import Rows
from fastdd.data.sets import ffr
from tests.data.files.test_images import same_files
from tests.data.sets.test_faces import picture, spuco  # noqa: F401  a fixture

# Of data/*.pkl of its repository: images of (class, group) at 0.9, then at 0.95, 0.97, 0.99 and 0.999.
PUBLISHED = {
    "celeba_Smiling_train": ((592, 5335, 7797, 866), ((281, 411), (166, 242), (54, 79), (6, 8))),
    "celeba_Smiling_valid": ((73, 666, 989, 109), ((36, 53), (21, 31), (10, 10), (10, 10))),
    "utk_face_train": ((103, 934, 5731, 636), ((50, 302), (29, 178), (10, 58), (1, 6))),
    "utk_face_valid": ((13, 119, 724, 80), ((10, 39), (10, 23), (10, 10), (10, 10))),
}


def cells(counts):
    return np.repeat([0, 0, 1, 1], counts), np.repeat([0, 1, 0, 1], counts)


def a_ninth(majority):
    """Of the minority at 0.9, in the published arithmetic: of 9 none."""
    return int((1 - 0.9) * majority / (1 - (1 - 0.9)))


def counted(rows):
    return np.bincount(rows.labels * 2 + rows.groups, minlength=4).tolist()


@pytest.mark.parametrize("name", PUBLISHED)
def test_levels_leave_the_published_numbers(name):
    first, levels = PUBLISHED[name]
    labels, groups = cells(first)
    for level, minorities in zip((0.95, 0.97, 0.99, 0.999), levels, strict=True):
        least = ffr.LEAST if name.endswith("valid") else 0
        rows = ffr.at_level(labels, groups, level, np.random.RandomState(0), least)
        assert (np.diff(rows) > 0).all()
        assert counted(Rows([], labels[rows], groups[rows])) == [minorities[0], *first[1:3], minorities[1]]
    assert len(ffr.at_level(labels, groups, 0.9, np.random.RandomState(0))) == len(labels)


def test_a_class_of_one_group_has_nothing_to_drop():
    labels, groups = np.repeat([0, 1], 100), np.r_[np.zeros(100, np.int64), np.repeat([0, 1], [20, 80])]
    for least in (0, 10):
        rows = ffr.at_level(labels, groups, 0.95, np.random.RandomState(0), least)
        assert np.bincount(labels[rows] * 2 + groups[rows]).tolist() == [100, 0, max(5, least), 80]


def test_three_splits_are_cut_by_name_and_brought_to_their_first_level():
    """1,000 images in turn of the four cells; every eleventh is of none of them."""
    labels = np.where(np.arange(1000) % 11 == 10, -1, np.arange(1000) // 2 % 2)
    rows = Rows([f"{n:04}.png" for n in range(1000)], labels, np.arange(1000) % 2)
    splits = ffr.three_splits(rows, None, 0)
    for name, start, stop in (("train", 0, 800), ("validation", 800, 900), ("test", 900, 1000)):
        of = [row for row in range(start, stop) if labels[row] >= 0]
        numbers = [int(file[:4]) for file in splits[name].names]
        assert set(numbers) <= set(of)
        assert numbers == sorted(numbers)
        whole = counted(Rows([], labels[of], np.array(of) % 2))
        if name == "test":
            assert numbers == of
            continue
        # Group 0 is the smaller one of class 1, or as small: group 1 is the minority of class 0, whatever its size.
        smaller = int(np.argmin(whole[2:]))
        expected = list(whole)
        expected[1 - smaller] = a_ninth(whole[smaller])
        expected[2 + smaller] = a_ninth(whole[3 - smaller])
        assert counted(splits[name]) == expected
    at_99 = ffr.three_splits(rows, 0.99, 0)
    assert set(at_99["train"].names) < set(splits["train"].names)
    assert at_99["test"].names == splits["test"].names
    assert min(counted(at_99["train"])) == 2
    # Of 23 images of a class, 2 were left at 0.9: fewer than the 10 that no level takes.
    assert counted(at_99["validation"]) == counted(splits["validation"])
    assert ffr.three_splits(rows, 0.99, 1)["train"].names != at_99["train"].names


@pytest.fixture
def utkface(tmp_path):
    """Ages 0 to 59 of both genders, twice, one of race 4; and a name of three parts."""
    for age in range(60):
        for gender in (0, 1):
            for number in (1, 2):
                race = 4 if number == 1 else 0
                picture(tmp_path / f"UTKFace/{age}_{gender}_{race}_2017{number}.jpg.chip.jpg", age + 100 * gender)
    picture(tmp_path / "UTKFace/61_1_20170109.jpg", 0)
    return tmp_path


def test_utkface_old_and_young(utkface):
    data = load("utkface", utkface, target="gender", protected="age_ffr", size=8)
    assert data.class_names == ("male", "female")
    assert data.group_names == ("old", "young")
    for split in data.splits.values():
        shades = np.round(split.images.mean((1, 2, 3))).astype(int)
        ages = shades % 100
        assert (shades // 100 == split.labels).all()
        assert ((ages <= 5) | (ages >= 20) & (ages <= 50)).all()
        assert ((ages <= 5) == split.groups).all()
    # 37 ages of two images a gender; all are cut at 192 and 216 of 241 files. Men: the old are the minority.
    train = data.train.counts(2, 2)
    assert train[0, 0] == a_ninth(train[0, 1])
    assert train[1, 1] == a_ninth(train[1, 0])
    assert 5 <= data.test.counts(2, 2).sum() <= 25
    # 23 ages of four images, and a name of three parts.
    assert data.provenance["remarks"] == ["93 images of other ages or with another name are left out"]
    other = load("utkface", utkface, target="gender", protected="age_ffr", size=8, seed=1)
    assert other.test.images.tolist() != data.test.images.tolist()


def test_utkface_that_does_not_fit(utkface):
    for options, why in (
        ({}, "protected=age_ffr of utkface goes with target=gender, not age"),
        (
            {"target": "gender", "bias_ratio": 0.5},
            "utkface is biased by 0.9 and more: give a bias_ratio of at least 0.9",
        ),
    ):
        with pytest.raises(ValueError, match=why):
            load("utkface", utkface, protected="age_ffr", **options)
    with pytest.raises(ValueError, match="target of utkface must be one of age, gender, race, not 'age_ffr'"):
        load("utkface", utkface, target="age_ffr")
    with pytest.raises(ValueError, match=r"utkface has images for validation of its own: leave out validation=0\.2"):
        load("utkface", utkface, target="gender", protected="age_ffr", validation=0.2)


@pytest.fixture
def celeba_hq(tmp_path):
    """Images 0 to 199, named by their numbers: odd ones smile, those of the upper hundred's odd tens are men."""
    root = tmp_path / "CelebAMask-HQ"
    attributes = []
    for number in range(200):
        smiling, male = number % 2, number // 2 % 2
        picture(root / f"CelebA-HQ-img/{number}.jpg", number, (8, 8))
        attributes.append(f"{number}.jpg {2 * smiling - 1} {2 * male - 1}")
    lines = ["200", "Smiling Male", *attributes]
    (root / "CelebAMask-HQ-attribute-anno.txt").write_text("\n".join(lines))
    return tmp_path


def test_celeba_hq_is_cut_in_the_order_of_the_names(celeba_hq):
    data = load("celeba-hq", celeba_hq, split="ffr", size=8)
    names = sorted(str(number) for number in range(200))
    numbers = {split: np.round(images.images.mean((1, 2, 3))).astype(int) for split, images in data.splits.items()}
    assert numbers["test"].tolist() == [int(name) for name in names[180:]]
    assert {str(number) for number in numbers["train"]} < set(names[:160])
    assert {str(number) for number in numbers["validation"]} < set(names[160:180])
    for split, images in data.splits.items():
        assert (images.labels == numbers[split] % 2).all()
        assert (images.groups == numbers[split] // 2 % 2).all()
    biased = load("celeba-hq", celeba_hq, split="ffr", size=8, bias_ratio=0.99)
    assert biased.train.counts(2, 2).min() == 1
    np.testing.assert_array_equal(biased.test.images, data.test.images)
    np.testing.assert_array_equal(biased.validation.images, data.validation.images)


def test_celeba_hq_that_does_not_fit(celeba_hq):
    for options, why in (
        ({"split": "mine"}, "split of celeba-hq must be ffr, or left out for CelebA's splits, not 'mine'"),
        ({"split": "ffr", "bias_ratio": 0.89}, "celeba-hq is biased by 0.9 and more: .* not 0.89"),
        ({"split": "ffr", "protected": "Male+Smiling"}, "split=ffr of celeba-hq needs one attribute in protected"),
    ):
        with pytest.raises(ValueError, match=why):
            load("celeba-hq", celeba_hq, **options)
    with pytest.raises(FileNotFoundError, match=r"CelebA-HQ-to-CelebA-mapping\.txt is missing"):
        load("celeba-hq", celeba_hq)


def test_spuco_animals_has_validation(spuco, tmp_path):  # noqa: F811  a fixture
    data = load("spuco-animals", spuco, size=8)
    assert data.validation.counts(4, 4).tolist() == [[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 1], [0, 0, 1, 1]]
    shades = {0: 0, 1: 20, 4: 40, 5: 60, 10: 80, 11: 100, 14: 120, 15: 140}
    cells_ = data.validation.labels * 4 + data.validation.groups
    assert np.round(data.validation.images.mean((1, 2, 3))).tolist() == [shades[cell] for cell in cells_.tolist()]
    biased = load("spuco-animals", spuco, size=8, bias_ratio=0.97)
    np.testing.assert_array_equal(biased.validation.images, data.validation.images)
    build("spuco-animals", tmp_path / "a", spuco, options={"size": 8})
    save_store(data, tmp_path / "b")
    assert same_files(tmp_path / "a", tmp_path / "b")
    assert check_store(tmp_path / "a") == []
    with pytest.raises(ValueError, match="spuco-animals has images for validation of its own"):
        load("spuco-animals", spuco, validation=0.1)


def test_spuco_animals_as_from_fake_to_real_drops_it(spuco):  # noqa: F811  a fixture
    for number in range(1, 500):
        for part, name, group in (("birds", "landbirds", "land"), ("dogs", "big_dogs", "outdoor")):
            picture(spuco / f"spuco_{part}/val/{name}/{group}/{number}.jpg", 0)
        if number < 25:
            picture(spuco / f"spuco_birds/val/landbirds/water/{number}.jpg", 0)
    for level, kept in ((0.95, 25), (0.97, 16), (0.99, 10), (0.999, 10)):
        made = load("spuco-animals", spuco, size=8, split="ffr", bias_ratio=level)
        assert made.validation.counts(4, 4)[0].tolist() == [500, kept, 0, 0]
        assert made.train.counts(4, 4)[0].tolist() == [20, {0.95: 2}.get(level, 1), 0, 0]
        assert made.test.counts(4, 4).sum() == 16
    with pytest.raises(ValueError, match=r"spuco-animals is biased by 0\.95 and more: give .* not 0\.9"):
        load("spuco-animals", spuco, split="ffr", bias_ratio=0.9)
    with pytest.raises(ValueError, match="split of spuco-animals must be ffr, or left out, not 'val'"):
        load("spuco-animals", spuco, split="val")


def split_file(path, images, kind=list):
    """As the repository's code dumps it: paths of its own machine, classes, groups, and which are generated."""
    names, labels, groups = zip(*images, strict=True)
    names = [f"/elsewhere/datasets/{name}" for name in names]
    fields = {
        "filenames": kind(names),
        "targets": np.array(labels),
        "biases": np.array(groups),
        "real_gen": np.zeros(len(names)),
    }
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(pickle.dumps(fields, protocol=4))


@pytest.mark.parametrize("kind", [list, np.array, lambda names: [np.str_(name) for name in names]])
def test_split_files_name_the_images(celeba_hq, kind):
    of = {"train": (7, 12, 101), "valid": (30, 31), "test": (199, 0)}
    for word, numbers in of.items():
        images = [(f"CelebAMask-HQ/CelebA-HQ-img/{n}.jpg", n % 2, n // 2 % 2) for n in numbers]
        split_file(celeba_hq / f"data/celeba_Smiling_{word}_0.99.pkl", images, kind)
    options = {"split": "ffr", "size": 8, "split_files": celeba_hq / "data"}
    data = load("celeba-hq", celeba_hq, **options, bias_ratio=0.99)
    for split, word in (("train", "train"), ("validation", "valid"), ("test", "test")):
        found = np.round(getattr(data, split).images.mean((1, 2, 3))).astype(int)
        assert found.tolist() == list(of[word])
    recorded = [file["file"] for file in data.provenance["files"][2:]]
    assert recorded == [f"celeba_Smiling_{word}_0.99.pkl" for word in of]
    with pytest.raises(FileNotFoundError, match=r"there is no .*celeba_Smiling_train_0\.9\.pkl; From Fake to Real's"):
        load("celeba-hq", celeba_hq, **options)
    with pytest.raises(ValueError, match="split_files of celeba-hq go with split=ffr"):
        load("celeba-hq", celeba_hq, split_files=celeba_hq / "data")


def test_split_files_of_the_other_two(utkface, spuco):  # noqa: F811  a fixture
    """Both lie in one temporary folder."""
    for word, age in (("train", 30), ("valid", 2), ("test", 50)):
        images = [(f"images/{age}_{gender}_0_20172.jpg.chip.jpg", gender, int(age == 2)) for gender in (0, 1)]
        split_file(utkface / f"data/utk_face_{word}_0.9.pkl", images)
    options = {"target": "gender", "protected": "age_ffr", "split_files": utkface / "data"}
    data = load("utkface", utkface, **options, size=8)
    assert data.validation.counts(2, 2).tolist() == [[0, 1], [0, 1]]
    assert np.round(data.test.images.mean((1, 2, 3))).tolist() == [50, 150]
    birds, dogs = "spuco_birds/{}/landbirds/water/1.jpg", "spuco_dogs/{}/big_dogs/outdoor/0.jpg"
    others = [("spuco_birds/train/waterbirds/land/0.jpg", 1, 0), ("spuco_dogs/train/small_dogs/indoor/3.jpg", 2, 2)]
    for word, more in (("train", others), ("val", []), ("test", [])):
        images = [(birds.format(word).replace("1.", "0."), 0, 1), (dogs.format(word), 3, 3), *more]
        split_file(spuco / f"data/spuco_animals_{word}_0.97.pkl", images)
    animals = load("spuco-animals", spuco, size=8, split="ffr", split_files=spuco / "data", bias_ratio=0.97)
    assert [len(split) for split in animals.splits.values()] == [4, 2, 2]
    assert np.round(animals.train.images.mean((1, 2, 3))).tolist() == [20, 140, 40, 80]
    for name, more in (("utkface", {}), ("spuco-animals", {})):
        with pytest.raises(ValueError, match=f"split_files of {name} go with"):
            load(name, utkface, split_files=utkface / "data", **more)


class Runs:
    def __reduce__(self):
        return print, ("ran",)


def test_split_files_that_do_not_fit(celeba_hq, capsys):
    image = ("CelebAMask-HQ/CelebA-HQ-img/7.jpg", 1, 1)
    path = celeba_hq / "data/celeba_Smiling_train_0.9.pkl"

    def refused(error, why):
        with pytest.raises(error, match=why) as told:
            load("celeba-hq", celeba_hq, split="ffr", split_files=path.parent, size=8)
        assert "\n" not in str(told.value)

    split_file(path, [image, ("CelebA-HQ-img/700.jpg", 1, 1)])
    refused(FileNotFoundError, r"0\.9\.pkl names .*/700\.jpg, which is not among the images")
    split_file(path, [(image[0], 1, 0)])
    refused(RuntimeError, r"has .*/7\.jpg in class 1 and group 0, which it is not in")
    for content in ({"filenames": [image[0]], "targets": [1]}, {}, [image]):
        path.write_bytes(pickle.dumps(content))
        refused(RuntimeError, r"0\.9\.pkl needs filenames, targets and biases, as many of each")
    for content, why in (
        ({"filenames": Runs()}, r"is not a file of From Fake to Real's splits: it asks for builtins\.print"),
        ({"targets": np.zeros((2, 2), np.int64)}, "other values than its shape says, or several dimensions"),
        ({"targets": np.zeros(2, np.int16)}, "an array of another kind than numbers of 64 bits and text"),
        ({"targets": np.zeros(2, ">i8")}, "its numbers are in another byte order"),
        ({"targets": np.array([None])}, "an array of another kind"),
    ):
        path.write_bytes(pickle.dumps(content))
        refused(RuntimeError, why)
    path.write_bytes(path.read_bytes()[:40])
    refused(RuntimeError, "is not a file of From Fake to Real's splits")
    assert capsys.readouterr().out == ""
