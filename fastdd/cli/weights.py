"""``fastdd weights``."""

import warnings
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from fastdd import api, report
from fastdd import data as datasets
from fastdd.api.samples import bytes_of_samples
from fastdd.cli.console import bar, console
from fastdd.cli.datasets import BiasRatio, Name, Options, Root, data_options, load_dataset
from fastdd.cli.options import RUN, Command, Device, Json, Seed, new_app, output_file, picture_file
from fastdd.core import files, ranks
from fastdd.core.settings import given
from fastdd.data import Dataset
from fastdd.debias.density import kde
from fastdd.debias.density.embedding import EmbeddingSettings

app = new_app()

Embedding = Annotated[
    Path | None,
    typer.Option("--embedding", help="Embeddings [N, D] (.npy), in place of training.", show_default=False),
]
Earlier = Annotated[
    Path | None, typer.Option("--from", help="Earlier weights, whose embeddings to use.", show_default=False)
]
Encoder = Annotated[
    str | None, typer.Option(help="small, or resnet18 (published).", show_default=EmbeddingSettings.encoder)
]
Steps = Annotated[
    int | None, typer.Option(help="Training steps of the encoder.", show_default=str(EmbeddingSettings.steps))
]
Variance = Annotated[float, typer.Option(help="Of the kernel; larger is more even.")]
Temperature = Annotated[
    float | None,
    typer.Option(
        help="Of the softmax over scores; higher is more even.", show_default=str(kde.KdeSettings.temperature)
    ),
]
Clip = Annotated[str, typer.Option(help="Largest score, or none.")]
Score = Annotated[str, typer.Option(help="Unit of scores: median or mean of the class, minmax or none.")]
Normalise = Annotated[str, typer.Option(help="Of a class's scores: softmax, or sum (weights in proportion to them).")]
Scope = Annotated[str, typer.Option(help="What a density is taken over: class, batch or dataset.")]
Density = Annotated[str, typer.Option(help="exact, or knn (FAISS), with bounds.")]
Neighbours = Annotated[int | None, typer.Option(help="Neighbours of density knn.", show_default=str(kde.KdeSettings.k))]
Out = Annotated[
    Path | None,
    typer.Option(
        help="The weights (.safetensors).",
        show_default="runs/weights-DATASET.safetensors",
        rich_help_panel=RUN,
        callback=output_file,
    ),
]
Plot = Annotated[
    Path | None,
    typer.Option(help="Picture (PNG).", show_default=False, rich_help_panel=RUN, callback=picture_file),
]
_IMAGES = "Images"
Show = Annotated[
    int | None,
    typer.Option(
        help="Print so many of the heaviest and of the lightest images of every class.",
        show_default=False,
        min=1,
        rich_help_panel=_IMAGES,
    ),
]
Page = Annotated[
    Path | None,
    typer.Option(
        "--report",
        help="HTML page of the verdict and of the heaviest and lightest images; beside it, as .png, a contact sheet.",
        show_default=False,
        rich_help_panel=_IMAGES,
    ),
]
Csv = Annotated[
    Path | None,
    typer.Option(
        "--csv",
        help="A row a training image: path, class, group, weight, density, nearest neighbours.",
        show_default=False,
        rich_help_panel=_IMAGES,
        callback=output_file,
    ),
]
Stability = Annotated[
    str,
    typer.Option(
        help="What the order of rarity is compared between: halves of each class, or seeds (a second encoder is "
        "trained).",
        rich_help_panel=_IMAGES,
    ),
]
# Of each side of a class, in a page without --show.
_SHOWN = 8


@app.command(cls=Command)
def weights(
    dataset: Name = None,
    data_root: Root = None,
    bias_ratio: BiasRatio = None,
    data_option: Options = None,
    embedding: Embedding = None,
    earlier: Earlier = None,
    encoder: Encoder = None,
    steps: Steps = None,
    variance: Variance = 0.1,
    temperature: Temperature = None,
    clip: Clip = "3",
    score: Score = "median",
    normalise: Normalise = "softmax",
    scope: Scope = "class",
    density: Density = "exact",
    k: Neighbours = None,
    seed: Seed = 0,
    device: Device = "auto",
    out: Out = None,
    plot: Plot = None,
    json: Json = None,
    show: Show = None,
    page: Page = None,
    csv: Csv = None,
    stability: Stability = "halves",
) -> None:
    """Weights of the training images against a bias that no one has labelled, and what they do to every class."""
    if embedding is not None and earlier is not None:
        raise ValueError("--embedding and --from both name embeddings: leave one out")
    given_embedding = embedding or earlier
    of_parts = {"encoder": encoder, "steps": steps, "k": k, "temperature": temperature}
    _check_used(given_embedding, density, normalise, of_parts)
    _check_stability(stability, given_embedding)
    settings = {"encoder": encoder, "steps": steps, "variance": variance, "temperature": temperature, "k": k}
    settings |= {"score": score, "scope": scope, "density": density, "normalise": normalise, "device": device}
    settings = {**given(settings), "clip": _largest_score(clip)}
    sheet = None if page is None else report.sheet_beside(_page_file(page))
    for path in filter(None, (_weights_file(out), plot, json, page, sheet, csv)):
        ranks.first(partial(files.check_writable, path))
    options = data_options(data_option, bias_ratio=bias_ratio)
    data = load_dataset(dataset, data_root, options)
    if out is None:
        out = Path("runs") / f"weights-{data.name}.safetensors"
        ranks.first(lambda: files.check_folder(out.parent))
    if not given_embedding and out.parent.is_dir():
        ranks.first(lambda: files.check_writable(out, bytes_of_samples(len(data.train))))
    with bar(f"bias embedding of {data.name}") as update:
        weights = api.kde_weights(data, embedding=given_embedding, seed=seed, progress=update, **settings)
    ranks.first(lambda: out.parent.mkdir(exist_ok=True))
    ranks.first(lambda: weights.save(out))
    other = _other(data, {**settings, "seed": seed + 1}) if stability == "seeds" else None
    paths = datasets.image_paths(data, dataset, data_root, **options) if show or page or csv else None
    images = report.WeightedImages(data, weights, paths)
    written = {"picture": plot, "images": page, "contact sheet": sheet, "rows": csv}
    _tell(images, other, show, written, json)
    told = "".join(f", {what} in {path}" for what, path in written.items() if path is not None)
    console.print(f"weights in {out}{told}")


def _other(data: Dataset, settings: dict[str, Any]) -> kde.KdeWeights:
    """Weights by another encoder, to compare with."""
    with bar("another encoder") as update, warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of weights that are compared, not used
        return api.kde_weights(data, progress=update, **settings)


def _tell(
    images: report.WeightedImages,
    other: kde.KdeWeights | None,
    show: int | None,
    written: dict[str, Path | None],
    json: Path | None,
) -> None:
    """Write what is asked for, and print tables and the verdict; ``written`` has the files by what is in them."""
    data, weights = images.data, images.made
    labels, groups = data.train.labels, data.train.groups if data.num_groups > 1 else None
    diagnostics = weights.diagnostics(labels, groups)
    rarity = kde.rarity(weights.log_density, labels, groups)
    rows = report.weight_rows(diagnostics, data.class_names, rarity)
    verdict = kde.judge(weights, labels, groups, data.class_names, other)
    if json is not None:
        document = report.document(rows, **weights.metadata, verdict=asdict(verdict))
        ranks.first(lambda: report.write_json(json, document))
    if (plot := written["picture"]) is not None:
        title = f"{data.name}: KDE weights"
        ranks.first(lambda: report.plot_weights(diagnostics, data.class_names, rarity, plot, title))
    title = f"{data.name}: weights of the training images"
    console.print(report.weight_table(diagnostics, data.class_names, rarity, title))
    if show is not None:
        console.print(report.weight_extremes_table(images, show))
    if (page := written["images"]) is not None:
        ranks.first(lambda: report.write_weights_page(page, images, verdict, rows, show or _SHOWN))
        ranks.first(lambda: report.write_contact_sheet(written["contact sheet"], images, show or _SHOWN))
    if (csv := written["rows"]) is not None:
        ranks.first(lambda: report.write_weights_csv(csv, images))
    for line in report.verdict_lines(verdict):
        console.print(line)
    if diagnostics.gap is not None:
        console.print(f"the density's bounds are at most {diagnostics.gap:.2f} nats apart")


def _check_used(embedding: Path | None, density: str, normalise: str, settings: dict[str, Any]) -> None:
    """ValueError for settings of what is not done: no encoder is trained, no neighbours or softmax are taken."""
    for name in ("encoder", "steps"):
        if embedding is not None and settings[name] is not None:
            raise ValueError(f"--{name} is of an encoder, and {embedding} is in place of one: leave it out")
    if density == "exact" and settings["k"] is not None:
        raise ValueError(f"--k {settings['k']} is of --density knn: give that too, or leave it out")
    if normalise == "sum" and settings["temperature"] is not None:
        raise ValueError(f"--temperature {settings['temperature']:g} is of --normalise softmax: leave it out")


def _weights_file(out: Path | None) -> Path | None:
    """Names ending in .npy are taken for arrays where weights are read."""
    if out is not None and out.suffix.lower() == ".npy":
        raise ValueError(f"--out is a .safetensors file, such as {out.with_suffix('.safetensors')}, not {out}")
    return out


def _check_stability(stability: str, embedding: Path | None) -> None:
    if stability not in ("halves", "seeds"):
        raise ValueError(f"--stability must be halves or seeds, not {stability!r}")
    if stability == "seeds" and embedding is not None:
        raise ValueError(f"--stability seeds compares two encoders, and {embedding} is in place of one: use halves")


def _page_file(page: Path) -> Path:
    if page.suffix.lower() not in (".html", ".htm"):
        raise ValueError(f"--report is an HTML page, such as {page.stem or 'weights'}.html, not {page}")
    return page


def _largest_score(clip: str) -> float | None:
    try:
        return None if clip == "none" else float(clip)
    except ValueError:
        raise ValueError(f"--clip must be a number above 0, or none, not {clip!r}") from None
