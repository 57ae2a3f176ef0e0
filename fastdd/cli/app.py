"""The commands and their options."""

from pathlib import Path
from typing import Annotated, Optional

import typer
import typer.core
import typer.main

from fastdd.core.version import __version__


class Interrupted(Exception):
    """A KeyboardInterrupt with what it says, which Typer would drop."""


class _Commands(typer.core.TyperGroup):
    def invoke(self, ctx):
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as error:
            raise Interrupted(str(error)) from error


app = typer.Typer(
    name="fastdd",
    cls=_Commands,
    help="Dataset distillation that is fast and knows about bias. Any command takes --debug for tracebacks.",
    no_args_is_help=False,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
data_app = typer.Typer(help="Data sets: list them, build a packed store, check one.", rich_markup_mode=None)
app.add_typer(data_app, name="data")
bench_app = typer.Typer(
    help="Speed beside published code and plain PyTorch, where results match.", rich_markup_mode=None
)
app.add_typer(bench_app, name="bench")
experts_app = typer.Typer(
    help="Expert trajectories for method mtt: train, import, export, check.", rich_markup_mode=None
)
app.add_typer(experts_app, name="experts")

# Typer reads these at run time, so they are written for Python 3.10.
Dataset = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option("--dataset", help="Name (fastdd data list) or folder of a packed store.", show_default=False),
]
DataRoot = Annotated[
    Optional[Path],  # noqa: UP045
    typer.Option("--data-root", envvar="FASTDD_DATA_ROOT", help="Folder with the publisher's files."),
]
BiasRatio = Annotated[
    Optional[float],  # noqa: UP045
    typer.Option("--bias-ratio", help="Bias-aligned share of the training images (default: published, 0.9)."),
]
ValSplit = Annotated[
    Optional[float],  # noqa: UP045
    typer.Option(
        "--val-split",
        help="Share of the training images that is held out and tested on, in place of the test images.",
        show_default=False,
    ),
]
DataOptions = Annotated[
    Optional[list[str]],  # noqa: UP045
    typer.Option(
        "--data-option",
        metavar="NAME=VALUE",
        help="Another option of the data set (fastdd data list shows them); repeatable.",
        show_default=False,
    ),
]
Size = Annotated[Optional[int], typer.Option(help="Height and width in pixels, of image files.")]  # noqa: UP045
GroupsCsv = Annotated[
    Optional[Path],  # noqa: UP045
    typer.Option(help="folder: path,group rows.", show_default="ROOT/groups.csv if there"),
]
SkipCorrupt = Annotated[
    Optional[bool],  # noqa: UP045
    typer.Option("--skip-corrupt", help="Leave out images that can't be decoded, and list them."),
]
Preview = Annotated[
    Optional[Path],  # noqa: UP045
    typer.Option("--preview", help="Picture (PNG) of images of every class and group.", show_default=False),
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")]
Json = Annotated[
    Optional[Path],  # noqa: UP045
    typer.Option("--json", help="Also write the results to this file.", show_default=False),
]


def _version(show: bool) -> None:
    if show:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print it.")] = False,
) -> None:
    pass


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder for the runs and pictures.")] = Path("runs/demo"),
    full: Annotated[
        bool, typer.Option("--full", help="Also DC, DC+FairDD and DM+KDE: under six minutes on two cores.")
    ] = False,
    seed: Annotated[int, typer.Option(help="Every draw is a function of it.")] = 0,
    device: Device = "auto",
    json: Json = None,
) -> None:
    """Distil embedded, colour-biased digits with DM and DM+FairDD, and compare; under two minutes on two cores."""
    from fastdd.cli.demo import run_demo

    run_demo(out=out, full=full, seed=seed, device=device, json=json)


@app.command()
def distill(
    dataset: Dataset = None,
    data_root: DataRoot = None,
    bias_ratio: BiasRatio = None,
    val_split: ValSplit = None,
    data_option: DataOptions = None,
    method: Annotated[
        str,
        typer.Option(help="dm, dc (gradient matching), dsa (dc with augmentation) or mtt (trajectory matching)."),
    ] = "dm",
    debias: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(
            help="none, fairdd (or fairdd-iw, fairdd-ldam, fairdd-groupdro), or kde.",
            show_default="none; mtt: experts'",
        ),
    ] = None,
    ipc: Annotated[int, typer.Option(help="Synthetic images per class.")] = 10,
    iterations: Annotated[Optional[int], typer.Option(help="Steps.", show_default="preset")] = None,  # noqa: UP045
    out: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="Run folder.", show_default="runs/METHOD-DEBIAS-DATASET-IPC"),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue the run in --out; start it if none.")] = False,
    arch: Annotated[Optional[str], typer.Option(help="Network.", show_default="preset")] = None,  # noqa: UP045
    width: Annotated[Optional[int], typer.Option(help="Filters a convolution.", show_default="preset")] = None,  # noqa: UP045
    depth: Annotated[Optional[int], typer.Option(help="Blocks.", show_default="preset")] = None,  # noqa: UP045
    batch_real: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(help="Real images per class and step.", show_default="preset"),
    ] = None,
    lr_img: Annotated[Optional[float], typer.Option(help="Step size of the images.", show_default="preset")] = None,  # noqa: UP045
    init: Annotated[Optional[str], typer.Option(help="real, balanced or noise.", show_default="preset")] = None,  # noqa: UP045
    dsa_strategy: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="Augmentations joined by _, or none.", show_default="preset"),
    ] = None,
    sampling: Annotated[
        str,
        typer.Option(help="random (published), stratified (even group counts) or weighted (kde: in proportion)."),
    ] = "random",
    precision: Annotated[str, typer.Option(help="fp32, or bf16 for the real images' pass.")] = "fp32",
    metric: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="dc, dsa: distance of gradients: ours, mse or cos.", show_default="ours"),
    ] = None,
    outer_loop: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(help="dc, dsa: matching steps an iteration.", show_default="published for the IPC"),
    ] = None,
    inner_loop: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(help="dc, dsa: epochs of training between two of them.", show_default="published"),
    ] = None,
    lr_net: Annotated[
        Optional[float],  # noqa: UP045
        typer.Option(help="dc, dsa: step size of that training.", show_default="preset"),
    ] = None,
    memory: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="auto, or low for small parts at a time on GPUs too.", show_default="auto"),
    ] = None,
    experts: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option("--experts", help="mtt: folder of fastdd experts.", show_default=False),
    ] = None,
    expert_epochs: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(help="mtt: epochs from the student's start to its target.", show_default="preset"),
    ] = None,
    max_start_epoch: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(help="mtt: students start at an epoch below it.", show_default="preset"),
    ] = None,
    syn_steps: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(help="mtt: steps of a student.", show_default="preset"),
    ] = None,
    batch_syn: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(help="mtt: synthetic images a step.", show_default="preset; all"),
    ] = None,
    lr_teacher: Annotated[
        Optional[float],  # noqa: UP045
        typer.Option(help="mtt: first step size of students; it is learned.", show_default="preset"),
    ] = None,
    lr_lr: Annotated[
        Optional[float],  # noqa: UP045
        typer.Option(help="mtt: step size of that step size.", show_default="preset"),
    ] = None,
    step_size: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="mtt: learn its log (stays positive), or it as it is: raw (published).", show_default="log"),
    ] = None,
    unroll: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="mtt: exact, full (every graph kept) or tesla (approximate).", show_default="exact"),
    ] = None,
    published_factor: Annotated[
        Optional[bool],  # noqa: UP045
        typer.Option("--published-factor", help="mtt, tesla: halve the images' gradient, as its code does."),
    ] = None,
    soft_labels: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="mtt: none, teacher (the target's) or learned.", show_default="none"),
    ] = None,
    lr_label: Annotated[
        Optional[float],  # noqa: UP045
        typer.Option(help="mtt: step size of learned soft labels.", show_default=False),
    ] = None,
    weights: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option("--weights", help="kde: from fastdd weights, or a .npy.", show_default="computed"),
    ] = None,
    groups: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="fairdd: kmeans or dbscan (groups found, not given), or a .npy.", show_default="given"),
    ] = None,
    seed: Annotated[int, typer.Option(help="Every draw is a function of it.")] = 0,
    device: Device = "auto",
    checkpoint_seconds: Annotated[float, typer.Option(help="Least time between two checkpoints.", min=0)] = 30.0,
    evaluate: Annotated[
        bool, typer.Option("--evaluate", help="Evaluate the result at the end (implied by --json).")
    ] = False,
    nets: Annotated[int, typer.Option(help="Networks of that evaluation.", min=1)] = 5,
    epochs: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(help="Epochs of that evaluation.", show_default="published", min=1),
    ] = None,
    eval_every: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(help="Also evaluate on the way, every so many iterations; changes no result.", min=1),
    ] = None,
    eval_nets: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(help="Networks of each evaluation on the way.", show_default="2", min=1),
    ] = None,
    eval_epochs: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(help="Their epochs.", show_default="published", min=1),
    ] = None,
    json: Json = None,
) -> None:
    """Condense a data set into a few synthetic images per class."""
    from fastdd.cli.datasets import data_options
    from fastdd.cli.runs import run_distill

    run_distill(
        dataset=dataset,
        data_root=data_root,
        options=data_options(data_option, bias_ratio=bias_ratio, val_split=val_split),
        out=out,
        resume=resume,
        weights=weights,
        groups=groups,
        device=device,
        checkpoint_seconds=checkpoint_seconds,
        evaluation={"nets": nets, "epochs": epochs} if evaluate or json else None,
        json=json,
        method=method,
        debias=debias,
        ipc=ipc,
        iterations=iterations,
        arch=arch,
        width=width,
        depth=depth,
        batch_real=batch_real,
        lr_img=lr_img,
        init=init,
        dsa_strategy=dsa_strategy,
        sampling=sampling,
        precision=precision,
        metric=metric,
        outer_loop=outer_loop,
        inner_loop=inner_loop,
        lr_net=lr_net,
        memory=memory,
        experts=experts,
        expert_epochs=expert_epochs,
        max_start_epoch=max_start_epoch,
        syn_steps=syn_steps,
        batch_syn=batch_syn,
        lr_teacher=lr_teacher,
        lr_lr=lr_lr,
        step_size=step_size,
        unroll=unroll,
        published_factor=published_factor,
        soft_labels=soft_labels,
        lr_label=lr_label,
        eval_every=eval_every,
        eval_nets=eval_nets,
        eval_epochs=eval_epochs,
        seed=seed,
    )


@app.command()
def evaluate(
    target: Annotated[
        str, typer.Argument(help="Run folder or synthetic set; or the word random or whole.", metavar="RUN|FILE")
    ],
    dataset: Dataset = None,
    data_root: DataRoot = None,
    bias_ratio: BiasRatio = None,
    val_split: ValSplit = None,
    data_option: DataOptions = None,
    ipc: Annotated[Optional[int], typer.Option(help="Images per class, for random.")] = None,  # noqa: UP045
    protocol: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="Networks, epochs and figures of published code: dc, fairdd, mtt or dcbench."),
    ] = None,
    nets: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(help="Networks, each from its own initialisation.", show_default="the protocol's, or 5", min=1),
    ] = None,
    arch: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="Networks to train, joined by commas.", show_default="the run's"),
    ] = None,
    epochs: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(help="Training epochs.", show_default="published: 1000, 300 without DSA; whole 20", min=1),
    ] = None,
    dsa_strategy: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="Augmentation while training.", show_default="the run's"),
    ] = None,
    lr_net: Annotated[
        Optional[float],  # noqa: UP045
        typer.Option(help="Step size of the networks.", show_default="learned with the set, or 0.01"),
    ] = None,
    deo: Annotated[str, typer.Option(help="range (published code) or pairwise (as the paper writes it).")] = "range",
    seed: Annotated[int, typer.Option(help="Every draw is a function of it.")] = 0,
    device: Device = "auto",
    json: Json = None,
) -> None:
    """Train fresh networks on a set; accuracy and fairness on the real test set."""
    from fastdd.cli.datasets import data_options
    from fastdd.cli.runs import run_evaluate

    run_evaluate(
        target=target,
        dataset=dataset,
        data_root=data_root,
        options=data_options(data_option, bias_ratio=bias_ratio, val_split=val_split),
        archs=arch.split(",") if arch else [None],
        deo=deo,
        json=json,
        ipc=ipc,
        protocol=protocol,
        nets=nets,
        epochs=epochs,
        dsa_strategy=dsa_strategy,
        learning_rate=lr_net,
        seed=seed,
        device=device,
    )


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def estimate(context: typer.Context) -> None:
    """Time, memory and disk of a run, before it: fastdd estimate [distill|experts|evaluate] and that command's options.

    Without a command's name, distill. A few steps are done and timed; --json writes the figures.
    """
    from fastdd.cli.estimate import run_estimate

    known, arguments = ("distill", "experts", "evaluate"), list(context.args)
    name = arguments.pop(0) if arguments and arguments[0] in known else known[0]
    command = typer.main.get_command(app).commands[name]
    run_estimate(name, command.make_context(f"fastdd {name}", arguments).params)


@app.command()
def report(
    runs: Annotated[
        list[Path], typer.Argument(help="Run folders, finished or not, or synthetic sets.", metavar="RUN...")
    ],
    out: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="The page.", show_default="RUN/report.html; several: report.html"),
    ] = None,
    dataset: Dataset = None,
    data_root: DataRoot = None,
    bias_ratio: BiasRatio = None,
    data_option: DataOptions = None,
    embedding: Annotated[str, typer.Option(help="Of images in the plane: pca, tsne or none.")] = "pca",
    seed: Annotated[int, typer.Option(help="Which real images are shown.")] = 0,
) -> None:
    """Make one HTML page of runs, to read offline: images, losses, figures, groups, embeddings, configuration."""
    from fastdd.cli.datasets import data_options
    from fastdd.cli.report import run_report

    run_report(
        runs,
        out=out,
        dataset=dataset,
        data_root=data_root,
        options=data_options(data_option, bias_ratio=bias_ratio),
        embedding=embedding,
        seed=seed,
    )


@app.command()
def reproduce(
    paper: Annotated[Optional[str], typer.Argument(help="fairdd, kde or biased-dd.", show_default="all")] = None,  # noqa: UP045
    table: Annotated[Optional[str], typer.Argument(help="Of the paper.", show_default="all")] = None,  # noqa: UP045
    rows: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="Rows joined by commas, with * for any.", show_default="all"),
    ] = None,
    columns: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="Columns joined by commas.", show_default="all"),
    ] = None,
    budget: Annotated[str, typer.Option(help="full (as published) or quick (minutes a cell).")] = "full",
    data_root: DataRoot = None,
    out: Annotated[Path, typer.Option(help="Folder of runs, results and tables.")] = Path("reproduce"),
    seed: Annotated[int, typer.Option(help="Every draw is a function of it.")] = 0,
    device: Device = "auto",
    show_list: Annotated[
        bool,
        typer.Option("--list", help="Say what there is to run, what is done and what the rest costs; run nothing."),
    ] = False,
) -> None:
    """Run the rows of a paper's table: what is missing is run, what is done is kept; ours beside the published."""
    from fastdd.cli.reproduce import run_list, run_reproduce

    if show_list or paper is None or table is None:
        run_list(paper, table, rows, columns, budget, data_root, out, seed, device)
    else:
        run_reproduce(paper, table, rows, columns, budget, data_root, out, seed, device)


@app.command()
def weights(
    dataset: Dataset = None,
    data_root: DataRoot = None,
    bias_ratio: BiasRatio = None,
    data_option: DataOptions = None,
    embedding: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option("--embedding", help="Embeddings [N, D] (.npy), in place of training.", show_default=False),
    ] = None,
    earlier: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option("--from", help="Earlier weights, whose embeddings to use.", show_default=False),
    ] = None,
    encoder: Annotated[str, typer.Option(help="small, or resnet18 (published).")] = "small",
    steps: Annotated[int, typer.Option(help="Training steps of the encoder.")] = 60,
    variance: Annotated[float, typer.Option(help="Of the kernel; larger is more even.")] = 0.1,
    temperature: Annotated[float, typer.Option(help="Of the softmax over scores; higher is more even.")] = 0.5,
    clip: Annotated[str, typer.Option(help="Largest score, or none.")] = "3",
    score: Annotated[str, typer.Option(help="Unit of scores: median or mean of the class, minmax or none.")] = "median",
    scope: Annotated[str, typer.Option(help="What a density is taken over: class, batch or dataset.")] = "class",
    density: Annotated[str, typer.Option(help="exact, or knn (FAISS), with bounds.")] = "exact",
    k: Annotated[int, typer.Option(help="Neighbours of density knn.")] = 256,
    seed: Annotated[int, typer.Option(help="Every draw is a function of it.")] = 0,
    device: Device = "auto",
    out: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="The weights (.safetensors).", show_default="runs/weights-DATASET.safetensors"),
    ] = None,
    plot: Annotated[Optional[Path], typer.Option(help="Picture (PNG).", show_default=False)] = None,  # noqa: UP045
    json: Json = None,
) -> None:
    """Weights of the training images against a bias that no one has labelled, and what they do to every class."""
    from fastdd.cli.datasets import data_options
    from fastdd.cli.weights import run_weights

    run_weights(
        dataset=dataset,
        data_root=data_root,
        options=data_options(data_option, bias_ratio=bias_ratio),
        embedding=embedding,
        earlier=earlier,
        clip=clip,
        out=out,
        plot=plot,
        json=json,
        encoder=encoder,
        steps=steps,
        variance=variance,
        temperature=temperature,
        score=score,
        scope=scope,
        density=density,
        k=k,
        seed=seed,
        device=device,
    )


# Options of ``fastdd run`` that are followed by a value.
RUN_VALUES = ("--rng", "--seed", "--json")


@app.command(context_settings={"allow_interspersed_args": False, "ignore_unknown_options": False})
def run(
    script: Annotated[str, typer.Argument(help="A Python script.", metavar="SCRIPT")],
    arguments: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Argument(help="Its own arguments.", metavar="ARGS", show_default=False),
    ] = None,
    verify: Annotated[
        bool, typer.Option("--verify", help="Compare the first calls of every replaced name with the original.")
    ] = False,
    rng: Annotated[str, typer.Option(help="fast, or legacy for the script's own draws bit for bit.")] = "fast",
    seed: Annotated[Optional[int], typer.Option(help="Of the draws of fast.", show_default="0")] = None,  # noqa: UP045
    json: Json = None,
) -> None:
    """Run an existing distillation script, unchanged, with its slow functions replaced at import."""
    from fastdd.cli.run import run_script

    run_script(script, arguments or [], verify=verify, rng=rng, seed=seed, json=json)


@app.command("import")
def import_(
    path: Annotated[Path, typer.Argument(help="File or folder of another project.", metavar="PATH")],
    out: Annotated[Path, typer.Option(help="The synthetic set (.safetensors).")],
    format: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option("--format", help="dc, mtt, idc, dcbench, folder or npz.", show_default="by the content"),
    ] = None,
    dataset: Dataset = None,
    data_root: DataRoot = None,
    bias_ratio: BiasRatio = None,
    data_option: DataOptions = None,
    mean: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="What images are normalised with: a number a channel, joined by commas.", show_default=False),
    ] = None,
    std: Annotated[Optional[str], typer.Option(help="The same.", show_default=False)] = None,  # noqa: UP045
    method: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="What it was distilled with.", show_default="the file's"),
    ] = None,
    debias: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="The same: fairdd, kde ...", show_default="none"),
    ] = None,
    arch: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="Network to evaluate it on.", show_default="the file's, or the data set's"),
    ] = None,
    experiment: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(help="dc: which of several, from 0.", show_default="last"),
    ] = None,
    iteration: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="mtt: best, or a number.", show_default="best"),
    ] = None,
    learning_rate: Annotated[
        Optional[float],  # noqa: UP045
        typer.Option(help="Step size learned with the images.", show_default="the file's, if any"),
    ] = None,
    labels: Annotated[str, typer.Option(help="What soft labels are: probabilities or logits.")] = "probabilities",
    zca: Annotated[
        bool, typer.Option("--zca", help="Images are whitened: fit the same whitening on --dataset.")
    ] = False,
    factor: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(help="idc: of multi-formation: an image holds factor x factor.", show_default="1"),
    ] = None,
    decoder: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="idc: single, multi or bound.", show_default="single"),
    ] = None,
    ipc: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(help="dcbench: which of its sets.", show_default=False),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace --out.")] = False,
    device: Device = "auto",
) -> None:
    """Make a synthetic set of another project's result: res_*.pt, images_best.pt, data.pt, .npz or images."""
    from fastdd.cli.datasets import data_options
    from fastdd.cli.exchange import run_import

    run_import(
        path,
        out=out,
        force=force,
        format=format,
        dataset=dataset,
        root=data_root,
        data_options=data_options(data_option, bias_ratio=bias_ratio),
        mean=mean,
        std=std,
        method=method,
        debias=debias,
        arch=arch,
        experiment=experiment,
        iteration=iteration,
        learning_rate=learning_rate,
        labels=labels,
        zca=zca,
        factor=factor,
        decoder=decoder,
        ipc=ipc,
        device=device,
    )


@app.command()
def export(
    target: Annotated[Path, typer.Argument(help="Run folder or synthetic set.", metavar="RUN|FILE")],
    to: Annotated[str, typer.Option(help="dc, mtt, idc, dcbench, folder or npz.")],
    out: Annotated[Path, typer.Option(help="File or folder, as the format has it.")],
    method: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="dcbench: under which to put it.", show_default="the set's"),
    ] = None,
    hard_labels: Annotated[bool, typer.Option("--hard-labels", help="Leave soft labels out.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace files that are there.")] = False,
) -> None:
    """Write a synthetic set for DatasetCondensation, FairDD, MTT, IDC, DC-Bench and others."""
    from fastdd.cli.exchange import run_export

    run_export(target, out=out, to=to, method=method, hard_labels=hard_labels, force=force)


@app.command()
def info() -> None:
    """Versions, devices, and which fast paths are active, and why."""
    from fastdd.cli.info import run_info

    run_info()


@data_app.command("list")
def data_list() -> None:
    """The data sets by name, with their options and defaults."""
    from fastdd.cli.datasets import run_list

    run_list()


@data_app.command("build")
def data_build(
    name: Annotated[str, typer.Argument(help="Name of the data set (fastdd data list).")],
    out: Annotated[Path, typer.Option(help="Folder of the packed store.")],
    data_root: DataRoot = None,
    bias_ratio: BiasRatio = None,
    size: Size = None,
    groups_csv: GroupsCsv = None,
    data_option: DataOptions = None,
    skip_corrupt: SkipCorrupt = None,
    workers: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(help="Processes that decode images.", show_default="all cores", min=1),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue a build that was stopped; start if none.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace the store that is there.")] = False,
    preview: Preview = None,
) -> None:
    """Build a data set into a packed store, which later commands open at once."""
    from fastdd.cli.datasets import data_options, run_build

    named = {"bias_ratio": bias_ratio, "size": size, "groups_csv": groups_csv, "skip_corrupt": skip_corrupt}
    run_build(
        name,
        out=out,
        force=force,
        resume=resume,
        workers=workers,
        root=data_root,
        options=data_options(data_option, **named),
        preview=preview,
    )


@data_app.command("check")
def data_check(
    what: Annotated[str, typer.Argument(help="Folder of a packed store, or name of a data set.")],
    data_root: DataRoot = None,
    bias_ratio: BiasRatio = None,
    size: Size = None,
    groups_csv: GroupsCsv = None,
    data_option: DataOptions = None,
    skip_corrupt: SkipCorrupt = None,
    preview: Preview = None,
) -> None:
    """Check a store's digest, or that a data set's source files are there and whole; print counts per group."""
    from fastdd.cli.datasets import data_options, run_check

    named = {"bias_ratio": bias_ratio, "size": size, "groups_csv": groups_csv, "skip_corrupt": skip_corrupt}
    run_check(what, root=data_root, options=data_options(data_option, **named), preview=preview)


@bench_app.callback(invoke_without_command=True)
def bench(
    context: typer.Context,
    case: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option("--case", help="Cases by name or glob, such as 'augment/*'; repeatable.", show_default="all"),
    ] = None,
    device: Device = "auto",
    json: Json = None,
    plot: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option("--plot", help="Also draw speed-ups and roofline to this PNG file.", show_default=False),
    ] = None,
    upstream: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option("--upstream", help="Checkout of DatasetCondensation or FairDD, to time too.", show_default=False),
    ] = None,
    reps: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(help="Least number of timed calls.", show_default="7; quick 3", min=1),
    ] = None,
    budget: Annotated[
        Optional[float],  # noqa: UP045
        typer.Option(help="Seconds of timing a case, once there are --reps calls.", show_default="5; quick 0", min=0),
    ] = None,
    threads: Annotated[Optional[int], typer.Option(help="CPU threads.", show_default="all", min=1)] = None,  # noqa: UP045
    seed: Annotated[int, typer.Option(help="Of all inputs.", min=0)] = 0,
    quick: Annotated[
        bool, typer.Option("--quick", help="Tiny inputs: does it work? Says nothing about speed.")
    ] = False,
    memory: Annotated[
        bool, typer.Option("--memory", help="Also measure peak memory, of steps; takes twice as long.")
    ] = False,
    default_malloc: Annotated[
        bool, typer.Option("--default-malloc", help="Don't keep freed memory (other commands always do).")
    ] = False,
    show_list: Annotated[bool, typer.Option("--list", help="List the cases and exit.")] = False,
) -> None:
    """Measure cases; exit code 1 if one fails, or a result of fastdd's does not match."""
    if context.invoked_subcommand is not None:
        return
    from fastdd.cli.bench import run_bench, run_list

    if show_list:
        run_list(case or [])
        return
    run_bench(
        globs=case or [],
        device=device,
        json=json,
        plot=plot,
        upstream=upstream,
        reps=reps,
        budget=budget,
        threads=threads,
        seed=seed,
        quick=quick,
        memory=memory,
    )


@bench_app.command("validate")
def bench_validate(
    files: Annotated[list[Path], typer.Argument(help="Files that --json wrote.", metavar="F...")],
) -> None:
    """Check result files against their schema."""
    from fastdd.cli.bench import run_validate

    run_validate(files)


@experts_app.callback(invoke_without_command=True)
def experts(
    context: typer.Context,
    dataset: Dataset = None,
    data_root: DataRoot = None,
    bias_ratio: BiasRatio = None,
    data_option: DataOptions = None,
    debias: Annotated[str, typer.Option(help="Weights of the loss: none, fairdd or kde.")] = "none",
    ipc: Annotated[int, typer.Option(help="Of the distillation that they are for; chooses the preset.")] = 10,
    num_experts: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(help="Networks.", show_default="preset; published 100"),
    ] = None,
    epochs: Annotated[Optional[int], typer.Option(help="Epochs of each.", show_default="preset; published 50")] = None,  # noqa: UP045
    out: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="Folder of the trajectories.", show_default="runs/experts-DEBIAS-DATASET"),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue those in --out; start if none.")] = False,
    arch: Annotated[Optional[str], typer.Option(help="Network.", show_default="preset")] = None,  # noqa: UP045
    width: Annotated[Optional[int], typer.Option(help="Filters a convolution.", show_default="preset")] = None,  # noqa: UP045
    depth: Annotated[Optional[int], typer.Option(help="Blocks.", show_default="preset")] = None,  # noqa: UP045
    lr_teacher: Annotated[Optional[float], typer.Option(help="Step size.", show_default="preset")] = None,  # noqa: UP045
    batch_train: Annotated[Optional[int], typer.Option(help="Images a step.", show_default="preset")] = None,  # noqa: UP045
    momentum: Annotated[Optional[float], typer.Option(help="Of SGD.", show_default="preset")] = None,  # noqa: UP045
    weight_decay: Annotated[Optional[float], typer.Option(help="Of SGD.", show_default="preset")] = None,  # noqa: UP045
    decay: Annotated[
        Optional[bool],  # noqa: UP045
        typer.Option("--decay/--no-decay", help="A tenth of the step size in the second half.", show_default="preset"),
    ] = None,
    dsa_strategy: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="Augmentations joined by _, or none.", show_default="preset"),
    ] = None,
    sampling: Annotated[
        str, typer.Option(help="fairdd, kde: random (weights in the loss) or weighted (images drawn in proportion).")
    ] = "random",
    zca: Annotated[
        Optional[bool],  # noqa: UP045
        typer.Option("--zca/--no-zca", help="Whiten the images.", show_default="preset"),
    ] = None,
    dtype: Annotated[str, typer.Option(help="Of what is stored: fp32, or bf16 for half the space.")] = "fp32",
    eval_every: Annotated[int, typer.Option(help="Epochs between two tests, and after the last; 0: none.")] = 10,
    weights: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option("--weights", help="kde: from fastdd weights, or a .npy.", show_default="computed"),
    ] = None,
    groups: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="fairdd: kmeans or dbscan (groups found, not given), or a .npy.", show_default="given"),
    ] = None,
    processes: Annotated[int, typer.Option(help="That train side by side and share the threads.")] = 1,
    seed: Annotated[int, typer.Option(help="Every draw is a function of it.")] = 0,
    device: Device = "auto",
    json: Json = None,
) -> None:
    """Train experts, whose parameters after every epoch method mtt follows; or import, export or check them."""
    if context.invoked_subcommand is not None:
        return
    from fastdd.cli.datasets import data_options
    from fastdd.cli.experts import run_train

    run_train(
        dataset=dataset,
        data_root=data_root,
        options=data_options(data_option, bias_ratio=bias_ratio),
        debias=debias,
        out=out,
        weights=weights,
        groups=groups,
        json=json,
        ipc=ipc,
        num_experts=num_experts,
        epochs=epochs,
        resume=resume,
        arch=arch,
        width=width,
        depth=depth,
        lr_teacher=lr_teacher,
        batch_train=batch_train,
        momentum=momentum,
        weight_decay=weight_decay,
        decay=decay,
        dsa_strategy=dsa_strategy,
        sampling=sampling,
        zca=zca,
        dtype=dtype,
        eval_every=eval_every,
        processes=processes,
        seed=seed,
        device=device,
    )


@experts_app.command("import")
def experts_import(
    buffers: Annotated[list[Path], typer.Argument(help="Published buffers (replay_buffer_*.pt).", metavar="FILES...")],
    out: Annotated[Path, typer.Option(help="Folder of the trajectories.")],
    dataset: Dataset = None,
    data_root: DataRoot = None,
    bias_ratio: BiasRatio = None,
    data_option: DataOptions = None,
    debias: Annotated[str, typer.Option(help="That they were trained with: none, fairdd or kde.")] = "none",
    arch: Annotated[str, typer.Option(help="Their network.")] = "ConvNet",
    width: Annotated[Optional[int], typer.Option(help="Filters a convolution.", show_default="preset")] = None,  # noqa: UP045
    depth: Annotated[Optional[int], typer.Option(help="Blocks.", show_default="preset")] = None,  # noqa: UP045
    zca: Annotated[
        bool, typer.Option("--zca", help="They saw whitened images: fit the same whitening on --dataset.")
    ] = False,
    dtype: Annotated[str, typer.Option(help="Of what is stored: fp32, or bf16 for half the space.")] = "fp32",
    device: Device = "auto",
) -> None:
    """Make trajectories of published buffers, bit for bit."""
    from fastdd.cli.datasets import data_options
    from fastdd.cli.experts import run_import

    run_import(
        paths=buffers,
        dataset=dataset,
        data_root=data_root,
        options=data_options(data_option, bias_ratio=bias_ratio),
        out=out,
        debias=debias,
        arch=arch,
        width=width,
        depth=depth,
        zca=zca,
        dtype=dtype,
        device=device,
    )


@experts_app.command("export")
def experts_export(
    folder: Annotated[Path, typer.Argument(help="Folder of trajectories.", metavar="DIR")],
    out: Annotated[Path, typer.Option(help="Folder for the buffers.")],
    per_file: Annotated[int, typer.Option(help="Experts a file.")] = 10,
) -> None:
    """Write published buffers (replay_buffer_*.pt)."""
    from fastdd.cli.experts import run_export

    run_export(folder, out=out, per_file=per_file)


@experts_app.command("check")
def experts_check(
    folder: Annotated[Path, typer.Argument(help="Folder of trajectories.", metavar="DIR")],
) -> None:
    """Check sizes and SHA-256 of trajectories; print every expert's accuracy and fairness."""
    from fastdd.cli.experts import run_check

    run_check(folder)
