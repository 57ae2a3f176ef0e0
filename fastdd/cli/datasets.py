"""The data set that a command is given: its options, and how it is opened."""

import contextlib
import time
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml

from fastdd import data as datasets
from fastdd.cli.completion import words
from fastdd.cli.options import DATA
from fastdd.cli.talk import talk
from fastdd.core import bounds
from fastdd.core.text import listed
from fastdd.data import Dataset
from fastdd.debias.density.clusters import METHODS as CLUSTERINGS

Name = Annotated[
    str | None,
    typer.Option(
        "--dataset",
        help="Name (fastdd data list) or folder of a packed store.",
        show_default=False,
        autocompletion=words(datasets.available),
        rich_help_panel=DATA,
    ),
]
Root = Annotated[
    Path | None,
    typer.Option(
        "--data-root",
        envvar="FASTDD_DATA_ROOT",
        help="Folder with the publisher's files.",
        show_default=False,
        rich_help_panel=DATA,
    ),
]
BiasRatio = Annotated[
    float | None,
    typer.Option(
        "--bias-ratio",
        help="Bias-aligned share of the training images.",
        show_default="published, 0.9",
        rich_help_panel=DATA,
    ),
]
ValSplit = Annotated[
    float | None,
    typer.Option(
        "--val-split",
        help="Share of the training images that is held out and tested on, in place of the test images.",
        show_default=False,
        rich_help_panel=DATA,
    ),
]
Options = Annotated[
    list[str] | None,
    typer.Option(
        "--data-option",
        metavar="NAME=VALUE",
        help="Another option of the data set (fastdd data list shows them); repeatable.",
        show_default=False,
        rich_help_panel=DATA,
    ),
]


def weights_option(modes: Collection[str]) -> Any:
    """The option ``--weights`` of a command, for the debias modes that need them there."""
    option = typer.Option(
        "--weights",
        help=f"Weights of the training images, for --debias {listed(modes, 'or')}: of fastdd weights, or a .npy.",
        show_default="computed",
        rich_help_panel=DATA,
    )
    return Annotated[Path | None, option]


def groups_option(modes: Collection[str]) -> Any:
    """The option ``--groups`` of a command, for the debias modes that need them there."""
    option = typer.Option(
        "--groups",
        help=f"Groups of the training images, for --debias {listed(modes, 'or')}: {listed(CLUSTERINGS, 'or')} (found "
        "by clustering), or a .npy.",
        show_default="the data set's",
        rich_help_panel=DATA,
    )
    return Annotated[str | None, option]


def load_dataset(name: str | None, root: Path | None, options: dict[str, Any]) -> Dataset:
    """The data set that the options name."""
    if name is None:
        raise ValueError(f"--dataset is missing; one of: {', '.join(datasets.available())}, or a packed store's folder")
    began = time.perf_counter()
    data = datasets.load(name, root, **options)
    sizes = ", ".join(f"{split} {len(images):,}" for split, images in data.splits.items())
    talk.more(f"data set {data.name}: {sizes}, opened in {time.perf_counter() - began:.1f} s")
    return data


def data_options(pairs: list[str] | None, **named: Any) -> dict[str, Any]:
    """The data set's options: those with an option of their own (None: not given), and ``NAME=VALUE`` pairs.

    Raises:
        ValueError: a pair that is none, or an option given twice.
    """
    options = {name: value for name, value in named.items() if value is not None}
    for name, value in named_values("--data-option", pairs):
        if name in options:
            raise ValueError(f"the data set's {name} is given twice")
        options[name] = value
    return options


def named_values(option: str, pairs: list[str] | None) -> Iterator[tuple[str, Any]]:
    """Names and values of an option's ``NAME=VALUE`` pairs; ValueError where one is none."""
    for pair in pairs or []:
        name, equals, text = pair.partition("=")
        name = name.strip().replace("-", "_")
        if not equals or not name:
            raise ValueError(f"{option} must be NAME=VALUE, not {pair!r}")
        yield name, _value(text)


def _value(text: str) -> Any:
    """A YAML scalar; also a number such as 5e-3, which YAML 1.1 takes for a word."""
    try:
        value = bounds.load_yaml(text)
    except yaml.YAMLError:
        value = None
    # Anything but a scalar, and nothing at all, is a word.
    if not isinstance(value, bool | int | float | str):
        value = text
    if isinstance(value, str):
        with contextlib.suppress(ValueError):
            return float(value) if value[:1] in "+-.0123456789" else value
    return value
