"""Data sets by name: the options of each, and what a wrong one is told."""

import numpy as np
import pytest

from fastdd.data import available, load

# The published bias ratio and seed.
BIASED = {
    **dict.fromkeys(("c-mnist-fg", "c-mnist-bg", "c-fmnist-fg", "c-fmnist-bg"), (0.9, 30)),
    **dict.fromkeys(("c-digits", "cifar10-s"), (0.9, 0)),
    **dict.fromkeys(("cmnist-lff", "corrupted-cifar10"), (0.95, 0)),
    **dict.fromkeys(("cmnist-dd", "ccifar10-dd"), (0.95, 42)),
}
PLAIN = {"mnist", "fashion-mnist", "cifar10"}
# Their readers are tested by themselves.
OTHERS = {"cifar100", "svhn", "lff", "biased-dd", "dfa-folder"}
SUBSETS = {"imagenette", "imagewoof", "imagefruit", "imagemeow", "imagesquawk", "imageyellow"}
IMAGES = {
    *("bg-fmnist", "folder", "celeba", "celeba-hq", "utkface", "bffhq", "spuco-animals"),
    *("tiny-imagenet", "tiny-imagenet-s"),
    *SUBSETS,
    *(f"{name}-s" for name in SUBSETS),
}


def test_every_name_has_one_line():
    names = available()
    assert set(names) == {*BIASED, *PLAIN, *IMAGES, *OTHERS}
    assert all(line and "\n" not in line for line in names.values())


@pytest.mark.parametrize("name", sorted({*BIASED, *PLAIN}))
def test_every_set_is_built_under_its_name_with_its_provenance(mnist_root, cifar_root, name):
    # Both fixtures write below one temporary folder.
    data = load(name, mnist_root)
    assert data.name == data.provenance["builder"] == name
    assert data.num_classes == 10
    assert data.provenance["files"]
    for split in (data.train, data.test):
        # torch.from_numpy warns otherwise, or copies.
        assert split.images.flags.writeable
        assert split.images.flags.c_contiguous
    if name in BIASED:
        ratio, seed = BIASED[name]
        assert data.provenance["parameters"]["bias_ratio"] == ratio
        assert data.provenance["seed"] == seed
        assert load(name, mnist_root, bias_ratio=ratio, seed=seed).digest() == data.digest()
    else:
        assert data.num_groups == 1


@pytest.mark.parametrize(
    ("name", "option"),
    [
        *(("folder", "groups_csv"), ("bg-fmnist", "backgrounds"), ("ccifar10-dd", "frost_images")),
        *((name, "split_files") for name in ("celeba-hq", "utkface", "spuco-animals")),
    ],
)
def test_a_number_is_no_path(name, option):
    with pytest.raises(ValueError, match=f"^{option} of {name} must be a path, not 5$"):
        load(name, "nowhere", **{option: 5})


@pytest.mark.parametrize(
    ("name", "mean", "std"),
    [
        ("mnist", (0.1307,), (0.3081,)),
        ("fashion-mnist", (0.2861,), (0.3530,)),
        *(
            (name, (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010))
            for name in ("cifar10", "ccifar10-dd", "corrupted-cifar10")
        ),
        ("cifar10-s", (0.48905, 0.48451, 0.46715), (0.24278, 0.24082, 0.25098)),
        *((name, (0.5,) * 3, (0.5,) * 3) for name in sorted(BIASED) if "cifar10" not in name),
    ],
)
def test_the_published_normalisation(mnist_root, cifar_root, name, mean, std):
    data = load(name, mnist_root)
    assert [round(value, 5) for value in data.mean] == list(mean)
    assert [round(value, 5) for value in data.std] == list(std)


def test_an_unknown_name_lists_the_names_and_guesses():
    with pytest.raises(ValueError, match=r"unknown data set 'c-minst-fg'; did you mean c-mnist-fg\?") as error:
        load("c-minst-fg")
    assert all(name in str(error.value) for name in available())
    with pytest.raises(ValueError, match=r"unknown data set 'omniglot'; did you mean mnist\? \(one of:"):
        load("omniglot")


def test_a_folder_that_is_no_store_is_told_apart_from_an_unknown_name(tmp_path):
    with pytest.raises(ValueError, match="is not a packed store; if it holds images, load 'folder'"):
        load(tmp_path)


def test_numpys_numbers_are_numbers():
    data = load("c-digits", bias_ratio=np.float32(0.5), seed=np.int64(3))
    assert data.digest() == load("c-digits", bias_ratio=0.5, seed=3).digest()


@pytest.mark.parametrize("ratio", [-0.1, 1.5, float("nan")])
def test_a_ratio_outside_zero_to_one_is_refused(ratio):
    with pytest.raises(ValueError, match=rf"bias_ratio must lie in 0\.\.1, not {ratio}"):
        load("c-digits", bias_ratio=ratio)


@pytest.mark.parametrize("seed", [-1, 2**32])
def test_a_seed_out_of_range_is_refused(seed):
    with pytest.raises(ValueError, match=rf"seed must lie in 0\.\.4294967295, not {seed}"):
        load("c-digits", seed=seed)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("mnist", {"bias_ratio": 0.9}),
        ("cifar10", {"seed": 1}),
        ("c-digits", {"size": 32}),
        ("folder", {"bias_ratio": 0.5}),
        ("cifar10-s", {"groups_csv": "x.csv"}),
    ],
)
def test_an_option_that_a_set_does_not_have_is_refused(name, options):
    (option,) = options
    with pytest.raises(ValueError, match=f"{name} has no {option}"):
        load(name, **options)
