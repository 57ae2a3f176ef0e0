"""Image folders: order, classes, resizing, groups, and one line for each way they can be wrong."""

import csv
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fastdd.data import load


def write(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(pixels, np.uint8)).save(path, **({"lossless": True} if path.suffix == ".webp" else {}))


def flat(colour, height=4, width=4):
    return np.broadcast_to(np.array(colour, np.uint8), (height, width, 3))


@pytest.fixture
def root(tmp_path):
    """Two classes; the training images' first channel tells their order: 10, 20, ... ."""
    write(tmp_path / "train/cat/a.png", flat([10, 0, 0]))
    write(tmp_path / "train/cat/b.BMP", flat([20, 0, 0]))
    write(tmp_path / "train/dog/c.webp", flat([30, 0, 0]))
    write(tmp_path / "train/dog/a.png", np.full((4, 4), 25))
    (tmp_path / "train/dog/notes.txt").write_text("not an image")
    (tmp_path / "train/dog/._a.png").write_bytes(b"what another system left")
    write(tmp_path / "test/cat/x.png", flat([50, 0, 0]))
    write(tmp_path / "test/dog/y.png", flat([60, 0, 0]))
    return tmp_path


def groups_file(root, rows, name="groups.csv", header=("path", "group")):
    with (root / name).open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows])


GROUPS = [
    ("test/dog/y.png", "10"),
    ("test/cat/x.png", "9"),
    ("train/cat/a.png", "9"),
    ("train/cat/b.BMP", "10"),
    ("train/dog/a.png", "10"),
    ("train/dog/c.webp", "9"),
]


def test_classes_and_images_are_sorted_by_name(root):
    data = load("folder", root, size=4)
    assert data.class_names == ("cat", "dog")
    assert data.train.images[:, 0, 0, 0].tolist() == [10, 20, 25, 30]
    assert data.train.labels.tolist() == [0, 0, 1, 1]
    assert data.test.images[:, 0, 0, 0].tolist() == [50, 60]
    assert data.test.labels.tolist() == [0, 1]
    assert data.group_names == ("all",)
    assert not data.train.groups.any()


@pytest.mark.parametrize("backwards", [False, True])
def test_the_order_is_not_the_file_systems(root, monkeypatch, backwards):
    expected = load("folder", root).digest()
    iterdir = Path.iterdir
    monkeypatch.setattr(Path, "iterdir", lambda self: iter(sorted(iterdir(self), reverse=backwards)))
    assert load("folder", root).digest() == expected


def test_gray_becomes_rgb(root):
    assert (load("folder", root, size=4).train.images[2] == 25).all()


def test_val_will_do_for_test(root):
    expected = load("folder", root).digest()
    (root / "test").rename(root / "val")
    assert load("folder", root).digest() == expected


def test_mean_and_std_are_the_training_pixels(root):
    data = load("folder", root, size=8)
    pixels = data.train.images.astype(np.float64) / 255
    np.testing.assert_allclose(data.mean, pixels.mean((0, 2, 3)), rtol=1e-12)
    np.testing.assert_allclose(data.std, pixels.std((0, 2, 3)), rtol=1e-12)


def test_a_constant_channel_can_be_normalised(tmp_path):
    for split in ("train", "test"):
        write(tmp_path / split / "one/a.png", flat([7, 7, 7]))
    assert load("folder", tmp_path).std == (1 / 255,) * 3


@pytest.mark.parametrize("turned", [False, True])
def test_the_middle_of_the_longer_side_is_kept(tmp_path, turned):
    # Thirds of black, white and black: the centre square is all white, at half the size too.
    bands = np.zeros((8, 24, 3), np.uint8)
    bands[:, 8:16] = 255
    for split in ("train", "test"):
        write(tmp_path / split / "one/a.png", bands.transpose(1, 0, 2) if turned else bands)
    assert (load("folder", tmp_path, size=8).train.images == 255).all()
    small = load("folder", tmp_path, size=4).train.images[0, 0]
    assert (small[1:3, 1:3] == 255).all()


def test_32_is_the_size_by_default(root):
    assert load("folder", root).size == (32, 32)


def test_groups_are_read_and_numbers_sort_as_numbers(root):
    groups_file(root, GROUPS)
    data = load("folder", root)
    assert data.group_names == ("9", "10")
    assert data.train.groups.tolist() == [0, 1, 1, 0]
    assert data.test.groups.tolist() == [0, 1]


def test_several_columns_are_intersections(root):
    rows = [(path, group, light) for (path, group), light in zip(GROUPS, "nnddnd", strict=True)]
    groups_file(root, rows, header=("path", "age", "light"))
    data = load("folder", root, size=4, protected="age+light")
    assert data.group_names == ("9, d", "9, n", "10, d", "10, n")  # those that there are, the first column first
    assert data.train.groups.tolist() == [0, 2, 3, 0]
    assert data.test.groups.tolist() == [1, 3]
    assert load("folder", root, size=4, protected="light").group_names == ("d", "n")
    for protected, message in (
        ("age+place", "needs the columns path, age and place"),
        ("age+age", "names a column twice"),
        ("group", "another column is named by the option"),
    ):
        with pytest.raises(ValueError, match=message):
            load("folder", root, size=4, protected=protected)
    (root / "groups.csv").unlink()
    with pytest.raises(ValueError, match="names columns of a groups"):
        load("folder", root, size=4, protected="light")


def test_groups_of_another_file(root, tmp_path):
    groups_file(root, [(path, "warm" if group == "9" else "cold") for path, group in GROUPS], "other.csv")
    assert load("folder", root, groups_csv=root / "other.csv").group_names == ("cold", "warm")
    with pytest.raises(FileNotFoundError, match=r"there is no groups file .*none\.csv"):
        load("folder", root, groups_csv=root / "none.csv")


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (GROUPS[1:], "has no group for test/dog/y.png"),
        ([*GROUPS, ("train/cow/a.png", "9")], "names train/cow/a.png, which is not an image of this data set"),
        ([*GROUPS, ("train/cat/a.png", "10")], "line 8: train/cat/a.png is in two groups"),
        ([*GROUPS[:-1], ("train/dog/c.webp", "")], "line 7: train/dog/c.webp has no group"),
    ],
)
def test_groups_that_do_not_fit_are_named(root, rows, message):
    groups_file(root, rows)
    with pytest.raises(ValueError, match=message):
        load("folder", root)


def test_other_columns_are_named(root):
    groups_file(root, GROUPS, header=("file", "colour"))
    with pytest.raises(ValueError, match=r"needs the columns path and group, not \['file', 'colour'\]"):
        load("folder", root)


def test_the_digest_and_provenance_follow_the_content(root):
    first = load("folder", root)
    assert load("folder", root).digest() == first.digest()
    assert load("folder", root).provenance == first.provenance
    write(root / "train/cat/a.png", flat([11, 0, 0]))
    second = load("folder", root)
    assert second.digest() != first.digest()
    assert second.provenance != first.provenance


@pytest.mark.parametrize("content", [b"", b"nonsense", None])
def test_a_damaged_image_is_named(root, content):
    file = root / "train/cat/a.png"
    write(file, np.random.RandomState(0).randint(0, 256, (40, 40, 3)))
    file.write_bytes(file.read_bytes()[:1000] if content is None else content)
    with pytest.raises(RuntimeError, match=r"cannot decode .*train/cat/a\.png: ") as error:
        load("folder", root)
    assert "BytesIO" not in str(error.value)


def test_no_root_asks_for_one():
    with pytest.raises(FileNotFoundError, match="give it with --data-root"):
        load("folder")


def test_a_root_without_splits_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="needs the folders train and test"):
        load("folder", tmp_path)


def test_no_classes_and_empty_classes_are_named(root, tmp_path_factory):
    (root / "train/cow").mkdir()
    with pytest.raises(ValueError, match="train/cow has no images"):
        load("folder", root)
    bare = tmp_path_factory.mktemp("bare")
    for split in ("train", "test"):
        (bare / split).mkdir()
    with pytest.raises(ValueError, match="train has no class folders"):
        load("folder", bare)
    (bare / "train/cat").mkdir()
    with pytest.raises(ValueError, match="test has no images"):
        load("folder", bare)


def test_a_test_class_without_training_is_named(root):
    write(root / "test/cow/a.png", flat([1, 1, 1]))
    with pytest.raises(ValueError, match=r"test/cow is a class that .*train lacks"):
        load("folder", root)


def test_a_size_below_one_is_refused(root):
    with pytest.raises(ValueError, match="size must be at least 1 pixel, not 0"):
        load("folder", root, size=0)


@pytest.mark.realdata
def test_imagenette(data_root):
    data = load("folder", data_root / "imagenette_small", size=64)
    files = list((data_root / "imagenette_small/train").glob("*/*.JPEG"))
    assert len(data.train) == len(files)
    assert data.num_classes == 10
    assert data.class_names[0] == "n01440764"
    # Natural images: nowhere near black, white or constant.
    assert all(0.3 < mean < 0.6 for mean in data.mean)
    assert all(0.2 < std < 0.35 for std in data.std)


class TestLeftOut:
    """What a folder holds and is not read is told."""

    def test_images_of_all_types_are_read(self, root):
        for name in ("d.tif", "e.TIFF", "f.gif", "g.ppm", "h.jpe"):
            kind = {".jpe": "JPEG", ".ppm": "PPM"}.get(Path(name).suffix)
            Image.fromarray(flat([40, 40, 40])).save(root / "train/dog" / name, kind)
        data = load("folder", root, size=4)
        assert len(data.train) == 9
        assert (data.train.images[5:8, 0] == 40).all()

    def test_files_are_counted_by_the_reason(self, root):
        for name in (
            "train/dog/b.heic",
            "train/dog/c.heic",
            "train/cat/LICENSE",
            "train/list.txt",
            "train/cat/more/x.png",
        ):
            (root / name).parent.mkdir(exist_ok=True)
            (root / name).write_bytes(b"")
        write(root / "val/cat/z.png", flat([1, 2, 3]))
        assert load("folder", root).provenance["remarks"] == [
            "left out, files without a suffix: 1 (train/cat/LICENSE)",
            "left out, folders in class folders: 1 (train/cat/more)",
            "left out, hidden files: 1 (train/dog/._a.png)",
            "left out, files of the type .heic: 2 (train/dog/b.heic, ...)",
            "left out, files of the type .txt: 1 (train/dog/notes.txt)",
            "left out, files beside the class folders: 1 (train/list.txt)",
            "left out, classes in val, as there is test: 1 (val/cat)",
        ]

    def test_nothing_is_said_of_a_folder_of_images_alone(self, root):
        for name in ("notes.txt", "._a.png"):
            (root / "train/dog" / name).unlink()
        assert "remarks" not in load("folder", root).provenance

    def test_the_groups_file_that_names_one_is_told_why(self, root):
        groups_file(root, [*GROUPS, ("train/dog/notes.txt", "9")])
        with pytest.raises(ValueError, match=r"names train/dog/notes\.txt, which is .*; images end in \.png, "):
            load("folder", root)

    @pytest.mark.parametrize("target", [None, "/dev/zero"])
    def test_a_pipe_or_device_is_refused(self, root, target):
        path = root / "train/cat/p.png"
        os.mkfifo(path) if target is None else path.symlink_to(target)
        with pytest.raises(RuntimeError, match=r"cannot decode .*p\.png: not a regular file"):
            load("folder", root)


class TestAlike:
    """Names that mean the same."""

    def test_blanks_around_groups_are_taken_off(self, root):
        dark = iter(["Dark", " Dark", "Dark ", "\tDark", "Light", " Light"])
        groups_file(root, [(path, next(dark)) for path, _ in GROUPS])
        data = load("folder", root)
        assert data.group_names == ("Dark", "Light")
        assert not any("kept apart" in remark for remark in data.provenance["remarks"])

    @pytest.mark.parametrize("names", [("DARK", "Dark"), ("on land", "on  land"), ("é", "e\u0301"), ("1", "01")])
    def test_groups_that_look_alike_are_told(self, root, names):
        groups_file(root, [(path, names[number % 2]) for number, (path, _) in enumerate(GROUPS)])
        shown = " and ".join(map(repr, load("folder", root).group_names))
        remarks = load("folder", root).provenance["remarks"]
        assert f"groups {shown} are kept apart: rename them if they are one" in remarks

    def test_so_are_classes(self, root):
        write(root / "train/Cat /a.png", flat([1, 1, 1]))
        assert (
            "classes 'Cat ' and 'cat' are kept apart: rename them if they are one"
            in (load("folder", root).provenance["remarks"])
        )


def photos(root, classes=("Ahorn", "Müll"), each=10, below=""):
    """Gray images whose level is their number."""
    names = []
    for number in range(len(classes) * each):
        name = f"{below}img_{number:03d}.png"
        write(root / name, np.full((4, 4), number))
        names.append((name, classes[number % len(classes)], ("hell", "dunkel")[number // 2 % 2]))
    return names


def table(path, rows, header=("Datei", "Art", "Licht"), delimiter=";", encoding="utf-8"):
    text = "\n".join(delimiter.join(row) for row in (header, *rows)) + "\n"
    path.write_bytes(text.encode(encoding))
    return path


HEADER = {"path_column": "Datei", "label_column": "Art", "protected": "Licht", "size": 4}


class TestTables:
    """Classes and groups that a spreadsheet says, as spreadsheets write them."""

    @pytest.mark.parametrize("delimiter", [",", ";", "\t", "|", ":", "~"])
    @pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "latin-1", "utf-16", "utf-16-le"])
    def test_any_delimiter_and_encoding(self, tmp_path, delimiter, encoding):
        file = table(tmp_path / "t.csv", photos(tmp_path / "p"), delimiter=delimiter, encoding=encoding)
        data = load("folder", tmp_path / "p", table=file, **HEADER)
        assert data.class_names == ("Ahorn", "Müll")
        assert data.group_names == ("dunkel", "hell")
        for split in (data.train, data.test):
            number = split.images[:, 0, 0, 0]
            assert (split.labels == number % 2).all()
            assert (split.groups == 1 - number // 2 % 2).all()
        guessed = [remark for remark in data.provenance["remarks"] if "is not UTF-8 and was read as" in remark]
        assert len(guessed) == (encoding == "latin-1")

    @pytest.mark.parametrize(
        "called",
        [
            lambda name, root: name,
            lambda name, root: Path(name).name,
            lambda name, root: Path(name).stem,
            lambda name, root: str(root / name),
            lambda name, root: f"deep/{Path(name).name}",
            lambda name, root: "C:\\pictures\\" + name.replace("/", "\\"),
            lambda name, root: "./" + name,
        ],
    )
    def test_images_are_found_by_what_tables_call_them(self, tmp_path, called):
        root = tmp_path / "p"
        rows = [(called(name, root), *others) for name, *others in photos(root, below="in/deep/")]
        data = load("folder", root, table=table(tmp_path / "t.csv", rows), **HEADER)
        assert len(data.train) + len(data.test) == 20
        assert (data.train.labels == data.train.images[:, 0, 0, 0] % 2).all()

    def test_absolute_paths_lead_out_of_the_root(self, tmp_path):
        rows = [(str(tmp_path / "else" / name), *others) for name, *others in photos(tmp_path / "else")]
        (tmp_path / "p").mkdir()
        data = load("folder", tmp_path / "p", table=table(tmp_path / "t.csv", rows), **HEADER)
        assert len(data.train) == 16

    def test_an_image_of_the_same_name_in_another_folder_is_another(self, tmp_path):
        write(tmp_path / "p/dog/a.png", flat([1, 1, 1]))
        for called in ("cow/a.png", "/x/cow/a.png"):
            file = table(tmp_path / "t.csv", [(called, "cow", "x")])
            with pytest.raises(ValueError, match=f"names {called}, which is not an image"):
                load("folder", tmp_path / "p", table=file, **HEADER)
        write(tmp_path / "p/cow/a.png", flat([1, 1, 1]))
        with pytest.raises(ValueError, match=r"line 2: a\.png can be cow/a\.png or dog/a\.png: give more of the path"):
            load("folder", tmp_path / "p", table=table(tmp_path / "t.csv", [("a.png", "cow", "x")]), **HEADER)

    def test_several_columns_are_one_group_and_case_of_headers_does_not_matter(self, tmp_path):
        rows = [(*row, "nah") for row in photos(tmp_path / "p")]
        file = table(tmp_path / "t.tsv", rows, ("DATEI", " Art ", "Licht", "Ort"), "\t")
        data = load("folder", tmp_path / "p", table=file, **{**HEADER, "protected": "Licht+Ort"})
        assert data.group_names == ("dunkel, nah", "hell, nah")

    def test_a_column_of_splits(self, tmp_path):
        rows = [
            (*row, ("Train", "train", "TEST", "val")[number % 4]) for number, row in enumerate(photos(tmp_path / "p"))
        ]
        file = table(tmp_path / "t.csv", rows, ("Datei", "Art", "Licht", "split"))
        data = load("folder", tmp_path / "p", table=file, split_column="split", **HEADER)
        assert [len(split) for split in data.splits.values()] == [10, 5, 5]
        assert (data.test.images[:, 0, 0, 0] % 4 == 2).all()

    def test_images_without_a_group_have_one_by_name(self, tmp_path):
        rows = [
            (name, label, "" if number < 4 else light) for number, (name, label, light) in enumerate(photos(tmp_path))
        ]
        file = table(tmp_path / "t.csv", rows)
        with pytest.raises(ValueError, match=r"line 2: img_000\.png has no Licht; .* unknown_group=NAME"):
            load("folder", tmp_path, table=file, **HEADER)
        data = load("folder", tmp_path, table=file, unknown_group="unknown", **HEADER)
        assert data.group_names == ("dunkel", "hell", "unknown")
        every = np.concatenate([split.images[split.groups == 2, 0, 0, 0] for split in data.splits.values()])
        assert sorted(every) == [0, 1, 2, 3]

    def test_what_the_table_lacks_is_told(self, tmp_path):
        rows = photos(tmp_path)
        data = load("folder", tmp_path, table=table(tmp_path / "t.csv", rows[2:]), **HEADER)
        assert "left out, not in t.csv: 2 (img_000.png, ...)" in data.provenance["remarks"]

    def test_an_empty_table_is_told(self, tmp_path):
        photos(tmp_path)
        (tmp_path / "t.csv").touch()
        with pytest.raises(ValueError, match=r"t.csv needs the columns Datei, Art and Licht, and is empty$"):
            load("folder", tmp_path, table=tmp_path / "t.csv", **HEADER)

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"path_column": "Bild"}, r"needs the columns Bild, Art and Licht, not \['Datei', 'Art', 'Licht'\]"),
            ({"label_column": "Artt"}, r"; did you mean Art\?"),
            (
                {"path_column": "path", "label_column": None},
                r"needs the columns path and Licht, .* \(path_column and label_column name a table's columns\)",
            ),
            ({"split_column": "Licht"}, "Licht of img_000.png must be train, test or validation, not 'hell'"),
            ({"test_split": 1.5}, "test_split must lie in 0..1"),
            ({"test_split": 0.0}, "test_split 0 of 20 images leaves none on one side"),
            ({"name": "mnist"}, "name 'mnist' is that of a data set of its own"),
            ({"name": "a/b"}, "name must be a word that a folder can have"),
        ],
    )
    def test_what_does_not_fit_is_told_in_a_line(self, tmp_path, options, message):
        file = table(tmp_path / "t.csv", photos(tmp_path))
        with pytest.raises(ValueError, match=message) as told:
            load("folder", tmp_path, table=file, **{**HEADER, **options})
        assert "\n" not in str(told.value)


class TestHeldOut:
    """Images that nothing parts into training and test."""

    @pytest.fixture
    def bare(self, root):
        """The folder without a test, of 10 images a class and group."""
        for label, name in enumerate(("cat", "dog")):
            for number in range(20):
                write(root / "train" / name / f"n{number:02d}.png", flat([label, number % 2, number]))
        for file in ("cat/a.png", "cat/b.BMP", "dog/c.webp", "dog/a.png"):
            (root / "train" / file).unlink()
        shutil.rmtree(root / "test")
        rows = [(f"train/{name}/n{n:02d}.png", str(n % 2)) for name in ("cat", "dog") for n in range(20)]
        groups_file(root, rows)
        return root

    def test_a_share_of_every_class_and_group_is(self, bare):
        data = load("folder", bare, size=4)
        assert data.test.counts(2, 2).tolist() == [[2, 2], [2, 2]]
        assert data.train.counts(2, 2).tolist() == [[8, 8], [8, 8]]
        every = np.concatenate([data.train.images[:, :, 0, 0], data.test.images[:, :, 0, 0]])
        assert len(np.unique(every, axis=0)) == 40
        assert any(
            "20% of every class and group, drawn by seed 0, are held out" in x for x in data.provenance["remarks"]
        )
        assert load("folder", bare, size=4).digest() == data.digest()
        assert load("folder", bare, size=4, seed=1).digest() != data.digest()
        assert load("folder", bare, size=4, test_split=0.5).test.counts(2, 2).tolist() == [[5, 5], [5, 5]]

    def test_val_split_keeps_them_apart(self, bare):
        data, split = load("folder", bare, size=4), load("folder", bare, size=4, val_split=0.25)
        tested = {image.tobytes() for image in data.test.images}
        assert split.tested_on == "validation"
        assert (len(split.train), len(split.test)) == (24, 8)
        assert not tested & {image.tobytes() for image in split.test.images}

    def test_so_is_it_of_class_folders_below_the_root(self, bare):
        (bare / "groups.csv").unlink()
        data = load("folder", bare / "train", size=4, name="pets")
        assert (data.name, data.class_names, len(data.train), len(data.test)) == ("pets", ("cat", "dog"), 32, 8)

    def test_a_test_set_of_its_own_is_not_added_to(self, root):
        with pytest.raises(ValueError, match=r"test_split 0\.5 is for images without a test set"):
            load("folder", root, test_split=0.5)
