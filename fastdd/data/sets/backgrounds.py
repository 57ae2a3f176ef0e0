"""BG-FMNIST: Fashion-MNIST's objects over photographs of scenes, one scene bias-aligned with each class.

A re-creation. The KDE paper ("Mitigating Bias in Dataset Distillation", section 5.1) made its Background Fashion-MNIST
from Fashion-MNIST and MiniPlaces and says no more than that: T-shirts go with bamboo forests, trousers with living
rooms, and so on, with 1, 2 or 5 % bias-conflicting images. Its list of scenes, image size, way of compositing and
normalisation are not published, and are choices here.
"""

import hashlib
import os
from pathlib import Path

import numpy as np

from fastdd.data.dataset import Dataset, Split
from fastdd.data.files.decode import Recipe, decode, read_item
from fastdd.data.files.readers import Source
from fastdd.data.files.statistics import channel_statistics
from fastdd.data.files.tree import is_image
from fastdd.data.sets.builders import FASHION_CLASSES
from fastdd.data.sets.lff import LFF_TEST_RATIO, milestone_groups
from fastdd.data.sets.variants import check_share

SIZE = 32
SEED = 0
PADDING = 2
# Every sixth photograph of a scene, as one of six or seven images of Fashion-MNIST, is for the test set.
_TEST_EVERY = 6
# Gray level from which an object hides the photograph wholly. Fashion-MNIST has specks of 1 to 5 around its objects.
OPAQUE = np.uint16(48)
# So few rows at a time that the sums stay in a core's cache.
_CHUNK = 128


def scene_photographs(folder: Path) -> tuple[list[Path], list[Path]]:
    """The photographs of a scene for training and for the test: those of a folder and of those in it, sorted by path.

    The first of every six is for the test, the other five are for training: no photograph serves both.

    Raises:
        ValueError: fewer than two photographs.
    """
    paths = sorted(path for path in folder.rglob("*") if is_image(path.name) and path.is_file())
    if len(paths) < 2:
        raise ValueError(
            f"{folder} needs two photographs or more, one for training and one for the test; it has {len(paths)}"
        )
    return [path for number, path in enumerate(paths) if number % _TEST_EVERY], paths[::_TEST_EVERY]


def _scene_folders(folder: str | os.PathLike | None, scenes) -> list[Path]:
    if folder is None:
        raise FileNotFoundError(
            "bg-fmnist needs photographs: give a folder with ten sub-folders, one a scene, as the option backgrounds"
        )
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"the folder of backgrounds {folder} does not exist")
    folders = sorted(path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    if scenes is None:
        if len(folders) < 10:
            raise ValueError(f"{folder} needs ten sub-folders, one a scene; it has {len(folders)}")
        return [folder / name for name in folders[:10]]
    if not isinstance(scenes, str | list | tuple):
        raise ValueError(f"scenes must be ten names with commas between, not {scenes!r}")
    names = [name.strip() for name in scenes.split(",")] if isinstance(scenes, str) else list(scenes)
    if len(names) != 10 or len(set(names)) != 10:
        raise ValueError(f"scenes needs ten different sub-folders, in the order of the classes, not {len(set(names))}")
    missing = [name for name in names if name not in folders]
    if missing:
        raise ValueError(f"{folder} has no sub-folder {missing[0]!r}")
    return [folder / name for name in names]


def _photograph(path: Path, sha) -> np.ndarray:
    """uint8 [3, 32, 32]: the shorter side resized (bilinear, antialiased), the centre cropped; not turned by EXIF."""
    try:
        content = read_item(str(path), None, 0, -1)
        pixels = decode(content, Recipe(SIZE, as_stored=True))
    except (OSError, ValueError) as error:
        raise RuntimeError(f"cannot decode {path}: {error}") from None
    sha.update(content)
    return pixels


def composite(gray: np.ndarray, photographs: np.ndarray) -> np.ndarray:
    """a gray + (1 - a) photograph, rounded, with a = min(gray / 48, 1): soft edges, and specks of 1 to 5 hardly show.

    Args:
        gray: uint8 [N, 32, 32].
        photographs: uint8 [N, 3, 32, 32].

    Returns:
        uint8 [N, 3, 32, 32].
    """
    out = np.empty_like(photographs)
    for start in range(0, len(gray), _CHUNK):
        rows = slice(start, start + _CHUNK)
        # At most 48 * 255 + 24.
        value = gray[rows, None].astype(np.uint16)
        alpha = np.minimum(value, OPAQUE)
        out[rows] = (alpha * value + (OPAQUE - alpha) * photographs[rows] + OPAQUE // 2) // OPAQUE
    return out


def bg_fmnist(
    source: Source,
    *,
    backgrounds: str | os.PathLike | None = None,
    scenes: str | list[str] | tuple[str, ...] | None = None,
    bias_ratio: float = 0.95,
    seed: int = SEED,
) -> Dataset:
    """BG-FMNIST, re-created: class k's objects lie mostly over photographs of scene k, 3x32x32.

    Groups are scenes, by LfF's rule (:func:`~fastdd.data.sets.lff.milestone_groups`), in Fashion-MNIST's order; of the
    test set a tenth of a class has its own scene. Each image draws a photograph of its scene, uniformly, those for the
    test being others than those for training (:func:`scene_photographs`); objects lie in the centre, two pixels from
    every edge, and are laid over as :func:`composite` says. Mean and std are those of the training pixels.

    Args:
        source: Fashion-MNIST as read.
        backgrounds: folder with a sub-folder a scene, of photographs of any size, as deep as they may lie.
        scenes: the ten sub-folders in the order of the classes, from T-shirt to ankle boot, as a list or with commas
            between; by default the first ten by name.
        bias_ratio: share of a class's training images over its own scene, 0..1; published .99, .98, .95.
        seed: of the photographs drawn. Deterministic in it.

    Raises:
        FileNotFoundError: no such folder.
        ValueError: fewer than ten scenes, one that is not there, or one with fewer than two photographs.
        RuntimeError: a photograph that can't be decoded, naming it.

    Cost: about a second, and 0.25 ms a photograph of 64x64 pixels, on one core.
    """
    check_share("bias_ratio", bias_ratio)
    folders = _scene_folders(backgrounds, scenes)
    sets = [scene_photographs(folder) for folder in folders]
    random = np.random.RandomState(seed)
    sha = hashlib.sha256()
    splits = []
    for part, (images, labels, ratio) in enumerate(
        (
            (source.train_images, source.train_labels, bias_ratio),
            (source.test_images, source.test_labels, LFF_TEST_RATIO),
        )
    ):
        groups = milestone_groups(labels, ratio)
        padded = np.pad(images[:, 0], ((0, 0), (PADDING, PADDING), (PADDING, PADDING)))
        out = np.empty((len(images), 3, SIZE, SIZE), np.uint8)
        for scene, paths in enumerate(sets):
            photographs = np.stack([_photograph(path, sha) for path in paths[part]])
            rows = np.flatnonzero(groups == scene)
            out[rows] = composite(padded[rows], photographs[random.randint(len(photographs), size=len(rows))])
        splits.append(Split(out, labels, groups))
    count = sum(len(paths) for pair in sets for paths in pair)
    mean, std = channel_statistics(splits[0].images)
    return Dataset(
        name="bg-fmnist",
        train=splits[0],
        test=splits[1],
        class_names=FASHION_CLASSES,
        group_names=tuple(folder.name for folder in folders),
        mean=mean,
        std=std,
        provenance={
            "builder": "bg-fmnist",
            "parameters": {
                "backgrounds": os.fspath(backgrounds),
                "scenes": [folder.name for folder in folders],
                "bias_ratio": bias_ratio,
            },
            "seed": seed,
            "files": [*source.files, {"file": f"{count} photographs", "sha256": sha.hexdigest()}],
        },
    )
