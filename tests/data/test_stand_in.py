"""Images in the place of generated ones: degraded validation images, images taken out of training, and folders."""

import zipfile

import numpy as np
import pytest
from PIL import Image

from fastdd.data import load
from fastdd.data.sets import corruptions
from fastdd.data.stand_in import read_fakes, stand_in, stand_in_of_validation, take_out


@pytest.fixture(scope="module")
def digits():
    return load("c-digits", bias_ratio=0.5, validation=0.3)


def rows_in(images, source):
    """The row of each image in a source of different images."""
    place = {image.tobytes(): row for row, image in enumerate(source)}
    assert len(place) == len(source)
    return [place[image.tobytes()] for image in images]


def test_stand_ins_are_degraded_an_image_at_a_time(digits):
    held = digits.validation
    made = stand_in(digits, None, 3, seed=5)
    assert made.images.dtype == np.uint8
    # All of them, by class, group and row.
    order = np.lexsort((np.arange(len(held)), held.groups, held.labels))
    np.testing.assert_array_equal(made.labels, held.labels[order])
    np.testing.assert_array_equal(made.groups, held.groups[order])
    for row in range(0, len(held), 31):
        image = held.images[order[row]][None]
        for name in ("pixelate", "defocus_blur", "gaussian_noise"):
            image = corruptions.corrupt(image, name, 3, order[row : row + 1], 5, 2)
        np.testing.assert_array_equal(made.images[row], image[0])
    again = stand_in(digits, None, 3, seed=5)
    np.testing.assert_array_equal(made.images, again.images)
    assert (stand_in(digits, None, 3, seed=6).images != made.images).any()
    assert (stand_in(digits, None, 5, seed=5).images != made.images).any()


def test_as_many_of_every_class_and_group(digits):
    one, two = (stand_in(digits, count, 1) for count in (1, 2))
    assert (one.counts(10, 10) == 1).all()
    assert (two.counts(10, 10) == 2).all()
    # The same images, and more.
    assert {image.tobytes() for image in one.images} < {image.tobytes() for image in two.images}
    few = digits.validation.counts(10, 10)
    label, group = np.unravel_index(few.argmin(), few.shape)
    name, colour = digits.class_names[label], digits.group_names[group]
    why = f"there are {few.min()} images of class '{name}', group '{colour}' to take {few.min() + 1} of: ask for fewer"
    with pytest.raises(ValueError, match=why):
        stand_in(digits, int(few.min()) + 1, 1)


def test_cells_that_nobody_has_are_none(digits):
    some = digits.validation.take(np.flatnonzero(digits.validation.groups < 4))
    with pytest.raises(ValueError, match="there are 0 images of class '0', group 'green' to take any of"):
        stand_in(digits, None, 1, source=some)
    biased = load("c-digits", bias_ratio=1.0, validation=0.3)
    assert stand_in(biased, 3, 1).counts(10, 10).tolist() == (3 * np.eye(10, dtype=int)).tolist()


def test_images_are_taken_out_of_training():
    data = load("c-digits", bias_ratio=0.5)
    rest, held = take_out(data, 2, seed=1)
    assert (held.counts(10, 10) == 2).all()
    kept, taken = rows_in(rest.train.images, data.train.images), rows_in(held.images, data.train.images)
    assert kept == sorted(kept)
    assert sorted(kept + taken) == list(range(len(data.train)))
    np.testing.assert_array_equal(held.labels, data.train.labels[taken])
    np.testing.assert_array_equal(rest.train.groups, data.train.groups[kept])
    np.testing.assert_array_equal(rest.test.images, data.test.images)
    assert rest.provenance["taken_out"] == {"per_cell": 2, "seed": 1}
    fakes = stand_in(rest, 2, 4, source=held)
    assert (fakes.counts(10, 10) == 2).all()
    few = data.train.counts(10, 10).min()
    with pytest.raises(ValueError, match=rf"there are {few} images .* to take {few} of, and one has to be left"):
        take_out(data, int(few))


def test_what_does_not_fit(digits):
    for severity in (0, 6, 2.5):
        with pytest.raises(ValueError, match=f"severity must be 1..5, not {severity}"):
            stand_in(digits, 1, severity)
    with pytest.raises(ValueError, match="per_cell must be at least 1, not 0"):
        stand_in(digits, 0, 1)
    with pytest.raises(ValueError, match="c-digits has no validation images to make stand-ins of: load it with valid"):
        stand_in(load("c-digits"), 1, 1)


CLASSES, GROUPS = ("T-shirt/top", "dog"), ("in water", "on land")


@pytest.fixture
def generated(tmp_path):
    """Of class c and group g g + 1 images of shade 100 c + 40 g + n; folders by names that a folder can have."""
    for c, name in enumerate(("t-shirt_top", "Dog")):
        for g, group in enumerate(("in_water", "on land")):
            folder = tmp_path / "fakes" / name / group
            folder.mkdir(parents=True)
            for n in range(g + 1):
                pixels = np.full((12, 16, 3), (100 * c + 40 * g + n, 10, 20), np.uint8)
                Image.fromarray(pixels).save(folder / f"{n}.png")
    return tmp_path / "fakes"


@pytest.mark.filterwarnings("error")
def test_generated_images_go_by_their_folders_names(generated, tmp_path):
    fakes = read_fakes(generated, CLASSES, GROUPS, 8)
    assert fakes.images.shape == (6, 3, 8, 8)
    assert fakes.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert fakes.groups.tolist() == [0, 1, 1, 0, 1, 1]
    assert fakes.images[:, 0, 0, 0].tolist() == [0, 40, 41, 100, 140, 141]
    # The data set's order, not the folders'.
    turned = read_fakes(generated, CLASSES[::-1], GROUPS[::-1], 8)
    assert turned.images[:, 0, 0, 0].tolist() == [140, 141, 100, 40, 41, 0]
    gray = read_fakes(generated, CLASSES, GROUPS, 8, channels=1)
    assert gray.images.shape == (6, 1, 8, 8)
    assert gray.images[3, 0, 0, 0] == round(0.299 * 100 + 0.587 * 10 + 0.114 * 20)
    with zipfile.ZipFile(tmp_path / "fakes.zip", "w") as archive:
        for file in sorted(generated.rglob("*.png")):
            archive.write(file, file.relative_to(generated))
    np.testing.assert_array_equal(read_fakes(tmp_path / "fakes.zip", CLASSES, GROUPS, 8).images, fakes.images)


def test_generated_images_by_number(generated):
    for name, number in (("t-shirt_top", "0"), ("Dog", "1")):
        (generated / name).rename(generated / number)
    assert read_fakes(generated, CLASSES, GROUPS, 8).labels.tolist() == [0, 0, 0, 1, 1, 1]


def test_a_class_and_group_without_images_is_named(generated):
    (generated / "Dog/in_water/0.png").unlink()
    why = r"fakes has no images of class 'dog', group 'in water': they are looked for in folders <class>/<group>"
    with pytest.raises(ValueError, match=why):
        read_fakes(generated, CLASSES, GROUPS, 8)
    assert len(read_fakes(generated, CLASSES, GROUPS, 8, cells=[(0, 0), (1, 1)])) == 5
    with pytest.raises(ValueError, match="no images of class 'dog', group 'in water', nor of 2 more"):
        read_fakes(generated, (*CLASSES, "cat"), GROUPS, 8)
    for name in generated.iterdir():
        name.rename(generated.parent / name.name)
    with pytest.raises(ValueError, match="has no images of class 'T-shirt/top', group 'in water', nor of 3 more"):
        read_fakes(generated, CLASSES, GROUPS, 8)


def test_folders_that_are_no_class_or_group_are_named(generated):
    (generated / "Dog/in space").mkdir()
    with pytest.raises(
        ValueError, match=r"^'in space' is no group of the data set \(in water, on land\), and groups go"
    ):
        read_fakes(generated, CLASSES, GROUPS, 8)
    (generated / "Dog/in space").rmdir()
    (generated / "wolf").mkdir()
    with pytest.raises(ValueError, match=r"^'wolf' is no class of the data set"):
        read_fakes(generated, CLASSES, GROUPS, 8)
    (generated / "wolf").rmdir()
    with pytest.raises(ValueError, match=r"fakes: folders must be numbered as the data set's, 0 to 2"):
        read_fakes(generated, ("0", "1", "2"), GROUPS, 8)


def test_what_is_no_image_is_told(generated):
    (generated / "Dog/prompts.png").write_bytes((generated / "Dog/in_water/0.png").read_bytes())
    (generated / "Dog/in_water/prompt.txt").write_text("a photo")
    with pytest.warns(RuntimeWarning) as told:
        assert len(read_fakes(generated, CLASSES, GROUPS, 8)) == 6
    assert [str(line.message).removeprefix(f"{generated}: ") for line in told] == [
        "left out, files of the type .txt: 1 (Dog/in_water/prompt.txt)",
        "left out, images beside the groups' folders: 1 (Dog/prompts.png)",
    ]
    (generated / "Dog/prompts.png").unlink()
    (generated / "Dog/in_water/prompt.txt").unlink()
    broken = generated / "Dog/on land/0.png"
    broken.write_bytes(broken.read_bytes()[:40])
    with pytest.raises(RuntimeError, match=r"cannot decode .*Dog/on land/0\.png: .*--skip-corrupt"):
        read_fakes(generated, CLASSES, GROUPS, 8)
    with pytest.warns(RuntimeWarning, match=r"corrupt images left out: 1 \(Dog/on land/0\.png: ") as told:
        fakes = read_fakes(generated, CLASSES, GROUPS, 8, skip_corrupt=True)
    assert len(told) == 1
    assert fakes.images[:, 0, 0, 0].tolist() == [0, 40, 41, 100, 141]
    (generated / "Dog/in_water/0.png").write_bytes(b"no image")
    with pytest.raises(ValueError, match="no images of class 'dog', group 'in water'"):
        read_fakes(generated, CLASSES, GROUPS, 8, skip_corrupt=True)


def test_sizes_that_do_not_fit(generated):
    with pytest.raises(ValueError, match="size must be at least 1 pixel, not 0"):
        read_fakes(generated, CLASSES, GROUPS, 0)
    with pytest.raises(ValueError, match="images have 3 channels, or 1 for gray, not 4"):
        read_fakes(generated, CLASSES, GROUPS, 8, channels=4)
    with pytest.raises(FileNotFoundError, match="there is no"):
        read_fakes(generated / "none", CLASSES, GROUPS, 8)


def test_validation_images_become_stand_ins_or_stay(digits):
    wanted = np.minimum(digits.validation.counts(10, 10) - 1, 2)
    wanted[3] = 0
    rest, made = stand_in_of_validation(digits, wanted, 2, seed=4)
    assert made.counts(10, 10).tolist() == wanted.tolist()
    left = rows_in(rest.validation.images, digits.validation.images)
    taken = np.setdiff1d(np.arange(len(digits.validation)), left)
    assert (rest.validation.counts(10, 10) + wanted == digits.validation.counts(10, 10)).all()
    # Those that are taken, degraded as the function for all of them degrades them.
    every = stand_in(digits, None, 2, seed=4)
    order = np.lexsort((np.arange(len(digits.validation)), digits.validation.groups, digits.validation.labels))
    np.testing.assert_array_equal(made.images, every.images[np.isin(order, taken)])
    np.testing.assert_array_equal(rest.train.images, digits.train.images)
    about = rest.provenance["stand_in"]
    assert (about["of"], about["images"], about["severity"]) == ("validation images", wanted.sum(), 2)
    with pytest.raises(ValueError, match=r"to take 500 of, and one has to be left: ask for fewer, or hold out more"):
        stand_in_of_validation(digits, np.full((10, 10), 500), 2)
