"""``fastdd weights``."""

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from fastdd import api, report
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
    for path in filter(None, (out, plot, json)):
        ranks.first(partial(files.check_writable, path))
    data = load_dataset(dataset, data_root, data_options(data_option, bias_ratio=bias_ratio))
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
    groups = data.train.groups if data.num_groups > 1 else None
    diagnostics = weights.diagnostics(data.train.labels, groups)
    rarity = kde.rarity(weights.log_density, data.train.labels, groups)
    if json is not None:
        rows = report.weight_rows(diagnostics, data.class_names, rarity)
        ranks.first(lambda: report.write_json(json, report.document(rows, **weights.metadata)))
    if plot is not None:
        title = f"{data.name}: KDE weights"
        ranks.first(lambda: report.plot_weights(diagnostics, data.class_names, rarity, plot, title))
    title = f"{data.name}: weights of the training images"
    console.print(report.weight_table(diagnostics, data.class_names, rarity, title))
    if diagnostics.gap is not None:
        console.print(f"the density's bounds are at most {diagnostics.gap:.2f} nats apart")
    console.print(f"weights in {out}{f', picture in {plot}' if plot else ''}")


def _largest_score(clip: str) -> float | None:
    try:
        return None if clip == "none" else float(clip)
    except ValueError:
        raise ValueError(f"--clip must be a number above 0, or none, not {clip!r}") from None
