"""BG-FMNIST: compositing by hand, photographs that are never shared, options and errors."""

import numpy as np
import pytest
from PIL import Image

from fastdd.data import load, objects_in
from fastdd.data.files import readers
from fastdd.data.sets import backgrounds
from tests.data.sets.test_lff import script_groups

# Scenes of Tiny-ImageNet: barn, lighthouse, dam, bridge, viaduct, alp, cliff, reef, lakeside, seashore.
TINY_SCENES = (
    *("n02793495", "n02814860", "n03160309", "n04366367", "n04532670"),
    *("n09193705", "n09246464", "n09256479", "n09332890", "n09428293"),
)


@pytest.fixture
def photographs(tmp_path):
    """Twelve scenes of seven photographs each, of one colour each: (scene, photograph, 200)."""
    folder = tmp_path / "scenes"
    for scene in range(12):
        # As deep as they may lie.
        (folder / f"scene{scene:02d}" / "images").mkdir(parents=True)
        for number in range(7):
            colour = (10 * scene, 10 * number, 200)
            Image.new("RGB", (40 + number, 50), colour).save(folder / f"scene{scene:02d}" / "images" / f"{number}.png")
    return folder


def test_compositing_by_hand():
    gray = np.array([0, 3, 24, 48, 200, 255], np.uint8).reshape(1, 1, 6)
    photograph = np.full((1, 3, 1, 6), 100, np.uint8)
    # a = 0, 1/16, 1/2, 1, 1, 1: (3 + 15 * 100) / 16 = 93.9, (24 + 100) / 2 = 62.
    for channel in backgrounds.composite(gray, photograph)[0]:
        assert channel[0].tolist() == [100, 94, 62, 48, 200, 255]


def test_photographs_of_training_are_not_in_the_test(photographs):
    training, test = backgrounds.scene_photographs(photographs / "scene03")
    assert [path.name for path in training] == [f"{n}.png" for n in (1, 2, 3, 4, 5)]
    assert [path.name for path in test] == ["0.png", "6.png"]


def test_bg_fmnist(mnist_root, photographs):
    data = load("bg-fmnist", mnist_root, backgrounds=photographs, bias_ratio=0.5)
    source = readers.read_mnist_files(mnist_root, readers.FASHION_MNIST)
    assert data.group_names == tuple(f"scene{scene:02d}" for scene in range(10))
    for split, images, labels, ratio, numbers in (
        (data.train, source.train_images, source.train_labels, 0.5, {1, 2, 3, 4, 5}),
        (data.test, source.test_images, source.test_labels, 0.1, {0, 6}),
    ):
        assert split.groups.tolist() == script_groups(labels.tolist(), ratio)
        # The corner shows the photograph: its scene is the group, its number of this split's.
        corner = split.images[:, :, 0, 0]
        np.testing.assert_array_equal(corner[:, 0], 10 * split.groups)
        assert set((corner[:, 1] // 10).tolist()) == numbers
        for row in range(0, len(split), 10):
            gray = np.pad(images[row], ((0, 0), (2, 2), (2, 2)))
            photograph = np.broadcast_to(corner[row][:, None, None], (3, 32, 32))
            np.testing.assert_array_equal(split.images[row], backgrounds.composite(gray, photograph[None])[0])


def test_the_scenes_can_be_chosen(mnist_root, photographs):
    names = [f"scene{scene:02d}" for scene in (11, 10, 9, 8, 7, 6, 5, 4, 3, 2)]
    data = load("bg-fmnist", mnist_root, backgrounds=photographs, scenes=",".join(names))
    assert data.group_names == tuple(names)
    assert data.digest() == load("bg-fmnist", mnist_root, backgrounds=photographs, scenes=names).digest()
    assert data.digest() != load("bg-fmnist", mnist_root, backgrounds=photographs).digest()
    assert data.digest() != load("bg-fmnist", mnist_root, backgrounds=photographs, scenes=names, seed=1).digest()


def test_bad_input(mnist_root, photographs, tmp_path):
    def fails(error, why, **given):
        with pytest.raises(error, match=why):
            load("bg-fmnist", mnist_root, **given)

    fails(FileNotFoundError, "needs photographs: give a folder with ten sub-folders")
    fails(FileNotFoundError, "does not exist", backgrounds=tmp_path / "none")
    fails(ValueError, "needs ten sub-folders, one a scene; it has 1", backgrounds=photographs / "scene00")
    fails(ValueError, "ten different sub-folders", backgrounds=photographs, scenes="scene00,scene01")
    fails(
        ValueError,
        "no sub-folder 'moon'",
        backgrounds=photographs,
        scenes=["moon", *(f"scene{scene:02d}" for scene in range(9))],
    )
    fails(ValueError, "bias_ratio must lie in 0..1", backgrounds=photographs, bias_ratio=2.0)
    (photographs / "scene04" / "images" / "3.png").write_bytes(b"no image")
    fails(RuntimeError, r"cannot decode .*3.png: not an image", backgrounds=photographs)
    for number in range(1, 7):
        (photographs / "scene04" / "images" / f"{number}.png").unlink()
    fails(ValueError, "scene04 needs two photographs or more.*it has 1", backgrounds=photographs)


@pytest.mark.realdata
def test_bg_fmnist_over_tiny_imagenet(data_root, tmp_path):
    train = data_root / "tiny_imagenet_20" / "tiny-imagenet-200" / "train"
    # Few photographs of a scene, so that the test takes a second.
    for scene in TINY_SCENES:
        (tmp_path / scene).mkdir()
        for path in sorted((train / scene / "images").iterdir())[:6]:
            (tmp_path / scene / path.name).symlink_to(path)
    data = load("bg-fmnist", data_root, backgrounds=tmp_path, scenes=",".join(TINY_SCENES), bias_ratio=0.99)
    assert (len(data.train), len(data.test)) == (60000, 10000)
    table = data.train.counts(10, 10)
    assert np.diag(table).tolist() == [5940] * 10
    assert set(table[~np.eye(10, dtype=bool)].tolist()) == {6, 7}
    assert data.test.counts(10, 10).tolist() == [[100] * 10] * 10
    # Where the object is, by the pixels and by Fashion-MNIST; of gray photographs nothing is told.
    gray = readers.read_fashion_mnist(data_root).test_images[::5, 0]
    truth, found = np.pad(gray, ((0, 0), (2, 2), (2, 2))) >= 48, objects_in(data, data.test.images[::5])
    told = found.any((1, 2))
    assert told.mean() >= 0.85
    shares = (found & truth)[told].sum((1, 2)) / (found | truth)[told].sum((1, 2))
    assert not (truth & ~found)[told].any()
    assert shares.mean() >= 0.98
