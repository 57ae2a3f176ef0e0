"""``fastdd distill``."""

import re
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from fastdd import api, models, report
from fastdd.api.initial import init_of_resumed
from fastdd.cli import settings_file
from fastdd.cli.completion import words
from fastdd.cli.console import bar, console
from fastdd.cli.datasets import (
    BiasRatio,
    Name,
    Options,
    Root,
    ValSplit,
    data_options,
    groups_option,
    load_dataset,
    weights_option,
)
from fastdd.cli.loggers_option import Log
from fastdd.cli.options import EVALUATION, RUN, Command, Config, Device, DryRun, Json, new_app, with_settings
from fastdd.cli.origin import dataset_of_run
from fastdd.cli.plan import show_estimate, show_plan, times, write_estimate
from fastdd.cli.repeats import SeedsText, digests, measured, print_repeats
from fastdd.cli.results import add_results, evaluate_with_bar, named, print_results
from fastdd.cli.talk import talk
from fastdd.core import files, ranks
from fastdd.core.settings import given
from fastdd.data import Dataset, SyntheticSet, is_store
from fastdd.data.initial import INITS, input_digest
from fastdd.debias import MODES, mode, modes_that_need
from fastdd.experts.store import Experts
from fastdd.methods import METHODS, Settings, methods_that_need_experts, stored
from fastdd.session import Callback, Progress, Run, RunLog, check_out
from fastdd.session.repeats import check_repeats, folder_of_seed, parse_seeds

app = new_app()

Weights = weights_option(modes_that_need("weights"))
Groups = groups_option(modes_that_need("groups"))


class Distill(Command):
    """Takes a run's own config.yaml, also an earlier version's."""

    section = "run"

    def from_section(self, content: dict[str, Any]) -> dict[str, Any]:
        store = content.get(settings_file.STORE)
        beside = {settings_file.DATA_DIGEST, settings_file.STORE, settings_file.PLUGINS}
        others = content.keys() - {self.section, *beside}
        of_store = {"dataset": store} if isinstance(store, str) and is_store(store) else {}
        return {**stored(content[self.section]).model_dump(), **{name: content[name] for name in others}, **of_store}


ExpertFolder = Annotated[
    Path | None,
    typer.Option(
        "--experts",
        help="Folder of experts (fastdd experts).",
        show_default=False,
        rich_help_panel=", ".join(methods_that_need_experts()),
    ),
]
Out = Annotated[
    Path | None,
    typer.Option(help="Run folder.", show_default="runs/METHOD-DEBIAS-DATASET-IPC", rich_help_panel=RUN),
]
Resume = Annotated[
    bool, typer.Option("--resume", help="Continue the run in --out; start it if none.", rich_help_panel=RUN)
]
CheckpointSeconds = Annotated[
    float, typer.Option(help="Least time between two checkpoints.", min=0, rich_help_panel=RUN)
]
Evaluate = Annotated[
    bool,
    typer.Option("--evaluate", help="Evaluate the result at the end (implied by --json).", rich_help_panel=EVALUATION),
]
NETS = 5
Nets = Annotated[
    int | None,
    typer.Option(help="Networks of that evaluation.", show_default=str(NETS), min=1, rich_help_panel=EVALUATION),
]
Epochs = Annotated[
    int | None,
    typer.Option(help="Epochs of that evaluation.", show_default="published", min=1, rich_help_panel=EVALUATION),
]
EvalEvery = Annotated[
    int | None,
    typer.Option(
        help="Also evaluate on the way, every so many iterations; changes no result.",
        show_default=False,
        min=1,
        rich_help_panel=EVALUATION,
    ),
]
EvalNets = Annotated[
    int | None,
    typer.Option(help="Networks of each evaluation on the way.", show_default="2", min=1, rich_help_panel=EVALUATION),
]
EvalEpochs = Annotated[
    int | None,
    typer.Option(help="Their epochs.", show_default="published", min=1, rich_help_panel=EVALUATION),
]
Snapshots = Annotated[
    int | None,
    typer.Option(
        help="Also keep the set so many times on the way, from the first images to the last; changes no result.",
        show_default=False,
        min=2,
        rich_help_panel=RUN,
    ),
]


@app.command(cls=Distill)
@with_settings(
    {name: method.Settings for name, method in METHODS.items()},
    after="groups",
    everyone="All methods",
    but=("dataset",),
    values={"method": METHODS},
    completions={"debias": words(MODES), "arch": words(models.names)},
)
def distill(
    dataset: Name = None,
    data_root: Root = None,
    bias_ratio: BiasRatio = None,
    val_split: ValSplit = None,
    data_option: Options = None,
    weights: Weights = None,
    groups: Groups = None,
    experts: ExpertFolder = None,
    out: Out = None,
    resume: Resume = False,
    log: Log = None,
    dry_run: DryRun = False,
    config: Config = None,
    device: Device = "auto",
    checkpoint_seconds: CheckpointSeconds = 30.0,
    snapshots: Snapshots = None,
    json: Json = None,
    evaluate: Evaluate = False,
    nets: Nets = None,
    epochs: Epochs = None,
    eval_every: EvalEvery = None,
    eval_nets: EvalNets = None,
    eval_epochs: EvalEpochs = None,
    seeds: SeedsText = None,
    **settings: Any,
) -> None:
    """Condense a data set into a few synthetic images per class."""
    numbers = None if seeds is None else _numbers(seeds, None if config is not None else settings["seed"])
    evaluated = evaluate or json is not None
    check_evaluation(evaluated, nets, epochs)
    if json is not None:
        ranks.first(lambda: files.check_writable(json))
    if dataset is None and resume and out is not None:
        dataset = dataset_of_run(out if numbers is None else folder_of_seed(out, numbers[0]))
    data = load_dataset(dataset, data_root, data_options(data_option, bias_ratio=bias_ratio, val_split=val_split))
    opened = None if experts is None else Experts.open(experts)
    settings = _settings(settings, opened)
    method, debias = settings["method"], settings["debias"]
    if config is not None and groups is None:
        _warn_of_other_data(config, data, settings, opened)
    out = out or Path("runs") / f"{method}-{debias}-{data.name}-{settings['ipc']}{'' if numbers is None else '-seeds'}"
    how = {"device": device, "snapshots": snapshots, "weights": weights, "groups": groups, "experts": opened}
    how |= {"eval_every": eval_every, "eval_nets": eval_nets, "eval_epochs": eval_epochs, **settings}
    evaluation = {"nets": nets or NETS, "epochs": epochs, "device": device} if evaluated else None
    if dry_run:
        _tell_plan(data, out, numbers, how, resume, evaluation, json)
        return
    how |= {"resume": resume, "checkpoint_seconds": checkpoint_seconds, "callbacks": [RunLog(*log)] if log else []}
    if numbers is not None:
        _several(data, numbers, out, how, evaluation, json)
    else:
        _single(data, out, how, evaluation, json)


def _numbers(seeds: str, seed: int | None) -> list[int]:
    if seed is not None:
        raise ValueError("--seed and --seeds: give one of them")
    return parse_seeds(seeds)


def check_evaluation(asked: bool, nets: int | None, epochs: int | None) -> None:
    """ValueError for options of the evaluation at the end where none was asked for."""
    for name, value in {"--nets": nets, "--epochs": epochs}.items():
        if value is not None and not asked:
            raise ValueError(f"{name} {value} is of the evaluation at the end: give --evaluate too")


def _tell_plan(
    data: Dataset,
    out: Path,
    numbers: list[int] | None,
    how: dict[str, Any],
    resume: bool,
    evaluation: dict[str, Any] | None,
    json: Any,
) -> None:
    """All settings and the estimate, after all checks; nothing is written."""
    places = [out] if numbers is None else [folder_of_seed(out, number) for number in numbers]
    if numbers is not None:
        check_repeats(out)
    for number, place in zip(numbers or [how.get("seed")], places, strict=True):
        seeded = {**how, "seed": number, "init": init_of_resumed(how.get("init"), place) if resume else how.get("init")}
        job = api.Distillation(data, **given(seeded))
        job.check(out=place, resume=resume)
    settings = job.settings.model_dump()
    show_plan(f"fastdd distill would make {', '.join(map(str, places))} on {job.device}, with", settings)
    tests = {} if evaluation is None else {"nets": evaluation["nets"], "epochs": evaluation["epochs"]}
    estimated = times(job.estimate(**tests), len(places))
    write_estimate(estimated, json, plan={**settings, "out": [str(place) for place in places]})
    show_estimate(estimated, f"fastdd distill, {job.data.name}", places[0])
    console.print("nothing was written (--dry-run)")


def _single(data: Dataset, out: Path, how: dict[str, Any], evaluation: dict[str, Any] | None, json: Any) -> None:
    synthetic = distill_with_bar(data, f"{how['method']} {how['debias']} {data.name}", out=out, **how)
    rows = [] if evaluation is None else [_evaluated(synthetic, data, evaluation)]
    ranks.first(lambda: add_results(rows, data, out, json))
    if "kde" in synthetic.metadata:
        console.print(report.weight_summary(synthetic.metadata["kde"]["diagnostics"]))
    if rows:
        print_results(rows)
    console.print(
        f"{len(synthetic.images)} images in {out / 'synthetic.safetensors'}, picture in {out / 'preview.png'}"
    )


def _several(
    data: Dataset, numbers: list[int], out: Path, how: dict[str, Any], evaluation: dict[str, Any] | None, json: Any
) -> None:
    """A run a seed, each in a folder of its own; what is done is kept."""
    ranks.first(lambda: _check_places(numbers, out, how["resume"]))
    rows = {}
    for number in numbers:
        folder = folder_of_seed(out, number)
        title = f"{how['method']} {how['debias']} {data.name}, seed {number}"
        synthetic = distill_with_bar(data, title, out=folder, **{**how, "seed": number})
        if evaluation is None:
            rows[number] = []
            ranks.first(lambda folder=folder: add_results([], data, folder, None))
        else:
            rows[number] = [_evaluated(synthetic, data, evaluation, folder)]
        console.print(f"seed {number}: {folder}")
    over = []
    everything = [row for of_seed in rows.values() for row in of_seed]
    if everything:
        print_results(everything)
        over = print_repeats(rows, f"{data.name}, %, {len(rows)} distillations")
    ranks.first(lambda: add_results([*everything, *over], data, None, json))
    console.print(
        f"{len(numbers)} distillation{'s' * (len(numbers) > 1)} in {out}: fastdd evaluate {out}, fastdd report {out}"
    )


def _check_places(numbers: list[int], out: Path, resume: bool) -> None:
    """That every seed can have its folder, before the first is distilled."""
    check_repeats(out)
    for number in numbers:
        check_out(folder_of_seed(out, number), resume)


def _settings(options: dict[str, Any], experts: Experts | None) -> dict[str, Any]:
    """Those that are given, and, where the run's name has them, those that are not."""
    usual = {name: Settings.model_fields[name].default for name in ("method", "ipc", "debias")}
    kind = METHODS.get(given(options).get("method"))
    if experts is not None and kind is not None and kind.debias_of_experts:
        usual["debias"] = experts.manifest["config"]["debias"]
    return {**usual, **given(options)}


def _evaluated(
    synthetic: SyntheticSet, data: Dataset, how: dict[str, Any], repeat: Path | None = None
) -> dict[str, Any]:
    """The result's row; in the folder of a repeat it is looked up first, and kept."""
    run = synthetic.metadata["run"]
    about = {name: run[name] for name in ("method", "debias", "ipc")}
    about |= {"trained": report.trained_networks(synthetic.metadata)}
    about |= {"dataset": data.name, "digests": digests(synthetic, data)}
    settings = {**how, "seed": run["seed"]}
    row = measured(repeat, synthetic, data, about, settings)
    if row is None:
        result = evaluate_with_bar(synthetic, data, "evaluation", **settings)
        row = named(report.result_row(result, **about), data)
        if repeat is not None:
            ranks.first(lambda: add_results([row], data, repeat, None))
    return row


def _warn_of_other_data(config: Path, data: Dataset, settings: dict[str, Any], experts: Experts | None) -> None:
    """A run's configuration names its data set, but not its options; it tells them by a digest, which networks, weights
    and a set to start from are in too."""
    others = settings.get("networks") is not None or settings.get("init", "real") not in INITS
    if others or mode(settings["debias"]).needs == "weights":
        return
    content = settings_file.read(config)
    digest, run = content.get(settings_file.DATA_DIGEST), content.get(Distill.section, {})
    if digest is None or run.get("dataset") != data.name:
        return
    if input_digest(data, None, None, experts and experts.digest()) != digest:
        warnings.warn(
            f"the run of {config} was on other data of the name {data.name}, such as of another --bias-ratio, or had "
            "--groups or other experts: its settings are used on the data given here",
            stacklevel=2,
        )


class _Checkpoints(Callback):
    """Of ``--verbose``: the settings, and every checkpoint."""

    def begins(self, run: Run) -> None:
        settings = ", ".join(f"{name} {value}" for name, value in run.config.model_dump().items() if value is not None)
        talk.more(f"settings: {settings}")
        talk.more(f"begins at step {run.step:,} of {run.total:,}")

    def checkpoint(self, run: Run) -> None:
        talk.more(f"checkpoint of step {run.step:,}")


def distill_with_bar(data: Dataset, title: str, *, callbacks: Sequence[Callback] = (), **settings: Any) -> SyntheticSet:
    """:func:`fastdd.distill` under a progress bar; prints its evaluations on the way."""
    first: list[Progress] = []
    announced, said = False, set()
    with bar(title) as update:

        def progress(now: Progress) -> None:
            if not first:
                first.append(now)
            seconds = now.seconds - first[0].seconds
            rate = (now.step - first[0].step) / seconds if seconds else None
            update(now.step, now.total, "evaluating" if now.evaluating else f"loss {now.loss:.4g}", rate)

        def embedding_progress(done: int, total: int) -> None:
            update(done, total, "bias embedding")

        def eval_progress(row: dict[str, Any]) -> None:
            nonlocal announced
            if not announced:
                console.print(f"on the way, {row['tested_on']} set, {report.networks(row)}:")
                announced = True
            console.print(f"  iteration {row['iteration']}: {report.figures(row)}")
            for line in row.get("warnings", ()):
                kind = re.sub(r"\(.*?\)", "", line)  # without the numbers, which differ every time
                if kind not in said:
                    said.add(kind)
                    console.print(f"  warning: {line}")

        calls = {"progress": progress, "embedding_progress": embedding_progress, "eval_progress": eval_progress}
        told = [_Checkpoints()] if talk.verbose else []
        return api.distill(data, **calls, callbacks=[*callbacks, *told], **settings)
