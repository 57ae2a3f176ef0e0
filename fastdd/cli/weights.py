"""``fastdd weights``."""

import warnings
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from fastdd import api, report
from fastdd import data as datasets
from fastdd.api.samples import bytes_of_samples
from fastdd.cli.console import bar, console
from fastdd.cli.datasets import BiasRatio, Name, Options, Root, data_options, load_dataset
from fastdd.cli.options import RUN, Command, Device, Json, Seed, new_app, output_file
from fastdd.core import files, ranks
from fastdd.debias.density import kde

app = new_app()

Embedding = Annotated[
    Path | None,
    typer.Option("--embedding", help="Embeddings [N, D] (.npy), in place of training.", show_default=False),
]
Earlier = Annotated[
    Path | None, typer.Option("--from", help="Earlier weights, whose embeddings to use.", show_default=False)
]
Encoder = Annotated[str, typer.Option(help="small, or resnet18 (published).")]
Steps = Annotated[int, typer.Option(help="Training steps of the encoder.")]
Variance = Annotated[float, typer.Option(help="Of the kernel; larger is more even.")]
Temperature = Annotated[float, typer.Option(help="Of the softmax over scores; higher is more even.")]
Clip = Annotated[str, typer.Option(help="Largest score, or none.")]
Score = Annotated[str, typer.Option(help="Unit of scores: median or mean of the class, minmax or none.")]
Normalise = Annotated[str, typer.Option(help="Of a class's scores: softmax, or sum (weights in proportion to them).")]
Scope = Annotated[str, typer.Option(help="What a density is taken over: class, batch or dataset.")]
Density = Annotated[str, typer.Option(help="exact, or knn (FAISS), with bounds.")]
Neighbours = Annotated[int, typer.Option(help="Neighbours of density knn.")]
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
    typer.Option(help="Picture (PNG).", show_default=False, rich_help_panel=RUN, callback=output_file),
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
    encoder: Encoder = "small",
    steps: Steps = 60,
    variance: Variance = 0.1,
    temperature: Temperature = 0.5,
    clip: Clip = "3",
    score: Score = "median",
    normalise: Normalise = "softmax",
    scope: Scope = "class",
    density: Density = "exact",
    k: Neighbours = 256,
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
    settings = {"encoder": encoder, "steps": steps, "variance": variance, "temperature": temperature}
    settings |= {
        "clip": _largest_score(clip),
        "score": score,
        "scope": scope,
        "density": density,
        "k": k,
        "normalise": normalise,
    }
    _check_stability(stability, embedding or earlier)
    sheet = None if page is None else report.sheet_beside(_page_file(page))
    for path in filter(None, (out, plot, json, page, sheet, csv)):
        ranks.first(partial(files.check_writable, path))
    options = data_options(data_option, bias_ratio=bias_ratio)
    data = load_dataset(dataset, data_root, options)
    if out is None:
        out = Path("runs") / f"weights-{data.name}.safetensors"
        ranks.first(lambda: files.check_folder(out.parent))
    if not (embedding or earlier) and out.parent.is_dir():
        ranks.first(lambda: files.check_writable(out, bytes_of_samples(len(data.train))))
    with bar(f"bias embedding of {data.name}") as update:
        weights = api.kde_weights(
            data, embedding=embedding or earlier, seed=seed, device=device, progress=update, **settings
        )
    ranks.first(lambda: out.parent.mkdir(exist_ok=True))
    ranks.first(lambda: weights.save(out))
    other = None
    if stability == "seeds":
        with bar("another encoder") as update, warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # of weights that are compared, not used
            other = api.kde_weights(data, seed=seed + 1, device=device, progress=update, **settings)
    groups = data.train.groups if data.num_groups > 1 else None
    diagnostics = weights.diagnostics(data.train.labels, groups)
    rarity = kde.rarity(weights.log_density, data.train.labels, groups)
    rows = report.weight_rows(diagnostics, data.class_names, rarity)
    verdict = kde.judge(weights, data.train.labels, groups, data.class_names, other)
    if json is not None:
        document = report.document(rows, **weights.metadata, verdict=asdict(verdict))
        ranks.first(lambda: report.write_json(json, document))
    if plot is not None:
        title = f"{data.name}: KDE weights"
        ranks.first(lambda: report.plot_weights(diagnostics, data.class_names, rarity, plot, title))
    title = f"{data.name}: weights of the training images"
    console.print(report.weight_table(diagnostics, data.class_names, rarity, title))
    paths = datasets.image_paths(data, dataset, data_root, **options) if show or page or csv else None
    images = report.WeightedImages(data, weights, paths)
    if show is not None:
        console.print(report.weight_extremes_table(images, show))
    if page is not None:
        ranks.first(lambda: report.write_weights_page(page, images, verdict, rows, show or _SHOWN))
        ranks.first(lambda: report.write_contact_sheet(sheet, images, show or _SHOWN))
    if csv is not None:
        ranks.first(lambda: report.write_weights_csv(csv, images))
    for line in report.verdict_lines(verdict):
        console.print(line)
    if diagnostics.gap is not None:
        console.print(f"the density's bounds are at most {diagnostics.gap:.2f} nats apart")
    written = {"picture": plot, "images": page, "contact sheet": sheet, "rows": csv}
    told = "".join(f", {what} in {path}" for what, path in written.items() if path is not None)
    console.print(f"weights in {out}{told}")


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
