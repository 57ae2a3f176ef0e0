"""The data sets: each is a line of :data:`DATASETS`, and is made, of a root and options, in the file of its kind."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from fastdd.data.dataset import Dataset
from fastdd.data.files import readers
from fastdd.data.sets import animals, arrays, backgrounds, builders, dfa, faces, imagenet, lff, objects, plain, utkface
from fastdd.data.sets.entry import Architecture, Entry, built
from fastdd.data.sets.folder import folder
from fastdd.data.sets.variants import with_variants


def _biased(read: Callable[..., Any], build: Callable[..., Dataset]) -> Callable[..., Dataset]:
    return with_variants(built(read, build))


def _c_digits(
    root, *, bias_ratio: float = builders.PUBLISHED_BIAS_RATIO, seed: int = builders.C_DIGITS_SEED
) -> Dataset:
    return builders.c_digits(bias_ratio=bias_ratio, seed=seed)


# Networks are trajectory matching's; FairDD does not name its own for Tiny-ImageNet-S and ImageNet Subset-S.
_TINY = {"architecture": Architecture("ConvNetD4"), "family": "tiny-imagenet"}
_SUBSET = {"architecture": Architecture("ConvNetD5"), "family": "imagenet-subset"}
_MNIST, _CIFAR10 = (60_000, 10_000), (50_000, 10_000)
_SETS = {
    "c-digits": Entry(
        "embedded: 1,797 real 8x8 digits at 16x16, in ten colours",
        with_variants(_c_digits),
        # Three poolings would shrink them to 2x2.
        architecture=Architecture(width=64, depth=2),
        objects=objects.brighter_half,
    ),
    "mnist": Entry("MNIST, 1x28x28", plain.mnist, published=_MNIST),
    "fashion-mnist": Entry("Fashion-MNIST, 1x28x28", plain.fashion_mnist, published=_MNIST),
    "cifar10": Entry("CIFAR-10, 3x32x32", plain.cifar10, published=_CIFAR10),
    "cifar100": Entry("CIFAR-100, 3x32x32", plain.cifar100, published=_CIFAR10),
    "svhn": Entry("SVHN, cropped digits, 3x32x32", plain.svhn, published=(73_257, 26_032)),
    "c-mnist-fg": Entry(
        "C-MNIST (FG): digits in ten colours, 3x32x32",
        _biased(readers.read_mnist, builders.c_mnist_fg),
        published=_MNIST,
        objects=objects.brighter_half,
    ),
    "c-mnist-bg": Entry(
        "C-MNIST (BG): backgrounds in ten colours, 3x32x32",
        _biased(readers.read_mnist, builders.c_mnist_bg),
        published=_MNIST,
        objects=objects.black,
    ),
    "c-fmnist-fg": Entry(
        "C-FMNIST (FG): Fashion-MNIST's objects in ten colours, 3x32x32",
        _biased(readers.read_fashion_mnist, builders.c_fmnist_fg),
        published=_MNIST,
        objects=objects.above_specks,
    ),
    "c-fmnist-bg": Entry(
        "C-FMNIST (BG): Fashion-MNIST on backgrounds in ten colours, 3x32x32",
        _biased(readers.read_fashion_mnist, builders.c_fmnist_bg),
        published=_MNIST,
        objects=objects.on_graded_background,
    ),
    "cifar10-s": Entry(
        "CIFAR10-S: CIFAR-10, gray or colour, 3x32x32",
        _biased(readers.read_cifar10, builders.cifar10_s),
        published=(50_000, 20_000),
    ),
    "cmnist-lff": Entry(
        "LfF's Colored MNIST: jittered colours, 3x28x28",
        _biased(readers.read_mnist, lff.cmnist_lff),
        _MNIST,
        objects=objects.brighter_half,
    ),
    "cmnist-dd": Entry(
        "CMNIST-DD: jittered colours, 3x28x28",
        _biased(readers.read_mnist, lff.cmnist_dd),
        _MNIST,
        objects=objects.brighter_half,
    ),
    "corrupted-cifar10": Entry(
        "LfF's Corrupted CIFAR-10: ten corruptions, 3x32x32",
        _biased(readers.read_cifar10, lff.corrupted_cifar10),
        _CIFAR10,
    ),
    "ccifar10-dd": Entry(
        "CCIFAR10-DD: ten corruptions, 3x32x32", _biased(readers.read_cifar10, lff.ccifar10_dd), _CIFAR10
    ),
    "bg-fmnist": Entry(
        "BG-FMNIST, re-created: Fashion-MNIST over photographs of scenes, 3x32x32",
        _biased(readers.read_fashion_mnist, backgrounds.bg_fmnist),
        _MNIST,
        objects=objects.opaque_gray,
    ),
    "tiny-imagenet": Entry("Tiny-ImageNet, 3x64x64, 200 classes", imagenet.tiny_imagenet, (100_000, 10_000), **_TINY),
    "tiny-imagenet-s": Entry(
        "Tiny-ImageNet-S: gray or colour, 3x64x64", with_variants(imagenet.tiny_imagenet_s), (100_000, 20_000), **_TINY
    ),
    **{
        name: Entry(
            f"ten classes of ImageNet, 3x128x128: {', '.join(list(classes.values())[:3])}, ...",
            imagenet.subset(name),
            **_SUBSET,
        )
        for name, classes in imagenet.SUBSETS.items()
    },
    **{
        f"{name}-s": Entry(
            f"{name} of ImageNet Subset-S: gray or colour, 3x128x128",
            with_variants(imagenet.subset_s(name)),
            **_SUBSET,
        )
        for name in imagenet.SUBSETS
    },
    "celeba": Entry("CelebA, 3x64x64: any attribute by any others", with_variants(faces.celeba), (162_770, 7_656)),
    "celeba-hq": Entry(
        "CelebA-HQ: smiling by gender, or any attributes", with_variants(faces.celeba_hq), (24_183, 2_824)
    ),
    "utkface": Entry(
        "UTKFace, 3x64x64: three ages by four races, or by gender", with_variants(utkface.utkface), (20_813, 1_200)
    ),
    "bffhq": Entry("BFFHQ, 3x64x64: age by gender, 99.5 % aligned", with_variants(faces.bffhq), (19_200, 1_000)),
    "spuco-animals": Entry(
        "SpuCo Animals: birds and dogs by surroundings", with_variants(animals.spuco_animals), (42_000, 4_000)
    ),
    "lff": Entry("a set that LfF's script saved as .npy files", with_variants(arrays.lff)),
    "biased-dd": Entry(
        "CMNIST-DD or CCIFAR10-DD as Biased-DD's scripts saved them, in .pth files",
        with_variants(arrays.biased_dd),
        _MNIST,
    ),
    "dfa-folder": Entry(
        "files that DFA offers: Colored MNIST, Corrupted CIFAR-10 or BFFHQ, by class and group",
        with_variants(dfa.dfa_folder),
    ),
    "folder": Entry(
        "one's own images: train/<class>/*.png and test/<class>/*.png (also jpg, tif, ...) under the root", folder
    ),
}

# Of the others (plain sets, one's own images) training images can be held out too.
DATASETS: dict[str, Entry] = {
    name: replace(entry, load=with_variants(entry.load, only={"val_split", "validation"}))
    for name, entry in _SETS.items()
}

__all__ = ["DATASETS", "Architecture", "Entry"]
