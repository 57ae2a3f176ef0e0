"""``fastdd evaluate``."""

import warnings
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from fastdd import api, models, report
from fastdd.cli.completion import joined, words
from fastdd.cli.console import bar, console
from fastdd.cli.datasets import BiasRatio, Name, Options, Root, ValSplit, data_options, load_dataset, named_values
from fastdd.cli.loggers_option import Log
from fastdd.cli.options import EVALUATION, Command, Config, Device, DryRun, Full, Json, constants_option, new_app
from fastdd.cli.origin import with_dataset
from fastdd.cli.plan import plan_of_evaluation
from fastdd.cli.rank import PROTOCOL, Compat, Rates, WholeEpochs, check_options, parsed_rates, rank_sets
from fastdd.cli.repeats import SeedsText, check_results, digests, measured, print_repeats, targets
from fastdd.core import files, ranks
from fastdd.core.text import one_of
from fastdd.data import Dataset, SyntheticSet
from fastdd.evaluation import METRICS, PROTOCOLS, DoubtfulFigures, Evaluation, published_protocol
from fastdd.session.loggers import numbers, write_rows
from fastdd.session.repeats import folder_of_seed
from fastdd.training import RECIPES

app = new_app()


Target = Annotated[
    str, typer.Argument(help="Run folder or synthetic set; or the word random or whole.", metavar="RUN|FILE")
]
ProtocolName = Annotated[
    str | None,
    typer.Option(
        help=f"Networks, epochs and figures of published code: {', '.join(PROTOCOLS)}.",
        autocompletion=words(PROTOCOLS),
        show_default=False,
        rich_help_panel=EVALUATION,
    ),
]
Ipc = Annotated[
    int | None, typer.Option(help="Images per class, for random.", show_default=False, rich_help_panel=EVALUATION)
]
Nets = Annotated[
    int | None,
    typer.Option(
        help="Networks, each from another initialisation.",
        show_default="the protocol's, or 5",
        min=1,
        rich_help_panel=EVALUATION,
    ),
]
Archs = Annotated[
    str | None,
    typer.Option(
        help="Networks to train, joined by commas.",
        show_default="the run's",
        rich_help_panel=EVALUATION,
        autocompletion=joined(models.names),
    ),
]
Epochs = Annotated[
    int | None,
    typer.Option(
        help="Training epochs.",
        show_default="published: 1000, 300 without DSA; whole 20",
        min=1,
        rich_help_panel=EVALUATION,
    ),
]
Strategy = Annotated[
    str | None,
    typer.Option(help="Augmentation while training.", show_default="the run's", rich_help_panel=EVALUATION),
]
LearningRate = Annotated[
    float | None,
    typer.Option(
        help="Learning rate of the networks.",
        show_default="learned with the set, or 0.01",
        rich_help_panel=EVALUATION,
    ),
]
Factor = Annotated[
    int | None,
    typer.Option(
        help="Of multi-formation: an image holds factor x factor, as the set says; another is refused.",
        show_default="the set's",
        min=1,
        rich_help_panel=EVALUATION,
    ),
]
Training = Annotated[
    str | None,
    typer.Option(
        help=f"Recipe by which networks are trained (fastdd recipes): {', '.join(RECIPES)}.",
        autocompletion=words(RECIPES),
        show_default="erm",
        rich_help_panel=EVALUATION,
    ),
]
Constants = constants_option(EVALUATION)
SetGroups = Annotated[
    str | None,
    typer.Option(
        "--groups",
        help="Groups of a synthetic set's images, for recipes that look at them: a .npy, or probe, those that the "
        "probe of fastdd audit tells.",
        metavar="FILE|probe",
        show_default="the set's, or those of the real images it started from",
        rich_help_panel=EVALUATION,
    ),
]
Teacher = Annotated[
    str | None,
    typer.Option(
        "--teacher",
        help="Of protocols rded and ddranking: trained network whose labels are learned (fastdd train, fastdd experts, "
        "or weights).",
        show_default="the set's",
        metavar="NETWORK",
        rich_help_panel=EVALUATION,
    ),
]
Labels = Annotated[
    str | None,
    typer.Option(
        "--labels",
        help="Of protocol rded: the teacher's (teacher), the classes (hard), or those of a file (fastdd relabel); of "
        "ddranking hard or teacher.",
        show_default="teacher; ddranking: the set's",
        metavar="teacher|hard|FILE",
        rich_help_panel=EVALUATION,
    ),
]
Deo = Annotated[
    str,
    typer.Option(help="range (published code) or pairwise (as the paper writes it).", rich_help_panel=EVALUATION),
]
Seed = Annotated[int, typer.Option(help="Every draw is a function of it.", rich_help_panel=EVALUATION)]
KeepNets = Annotated[
    Path | None,
    typer.Option(
        "--keep-nets",
        help="Folder to keep the trained networks in, for fastdd explain, and for a report where it is RUN/networks.",
        show_default=False,
        rich_help_panel=EVALUATION,
    ),
]


@app.command(cls=Command)
def evaluate(
    target: Target,
    dataset: Name = None,
    data_root: Root = None,
    bias_ratio: BiasRatio = None,
    val_split: ValSplit = None,
    data_option: Options = None,
    protocol: ProtocolName = None,
    ipc: Ipc = None,
    nets: Nets = None,
    arch: Archs = None,
    epochs: Epochs = None,
    dsa_strategy: Strategy = None,
    lr_net: LearningRate = None,
    factor: Factor = None,
    training: Training = None,
    constant: Constants = None,
    groups: SetGroups = None,
    teacher: Teacher = None,
    labels: Labels = None,
    rates: Rates = None,
    whole_epochs: WholeEpochs = None,
    compat: Compat = False,
    deo: Deo = "range",
    keep_nets: KeepNets = None,
    seed: Seed = 0,
    seeds: SeedsText = None,
    log: Log = None,
    full: Full = False,
    dry_run: DryRun = False,
    config: Config = None,
    device: Device = "auto",
    json: Json = None,
) -> None:
    """Train fresh networks on a set; accuracy and fairness on the real test set."""
    published = None if protocol is None else published_protocol(protocol)
    if deo not in ("range", "pairwise"):
        raise ValueError(f"unknown DEO definition {deo!r}; {one_of(deo, ('range', 'pairwise'))}")
    archs = [models.canonical_name(name) for name in arch.split(",")] if arch else [None]
    if json is not None:
        ranks.first(lambda: files.check_writable(json))
    of_ranking = {"rates": rates, "whole-epochs": whole_epochs, "compat": compat}
    others = {"factor": factor, "training": training, "constant": constant, "groups": groups, "keep-nets": keep_nets}
    check_options(protocol, of_ranking, others | {"log": log})
    options = data_options(data_option, bias_ratio=bias_ratio, val_split=val_split)
    places = targets(target, seeds)
    what, data, ipc = to_evaluate(next(iter(places.values())), dataset, data_root, options, ipc)
    if protocol == PROTOCOL:
        _check_networks(archs, data, [])
        how = {"ipc": ipc, "rounds": nets, "epochs": epochs, "dsa_strategy": dsa_strategy, "learning_rate": lr_net}
        how |= {"teacher": teacher, "labels": labels, "whole_epochs": whole_epochs, "rates": parsed_rates(rates)}
        how |= {"compat": compat, "device": device}
        first = next(iter(places.values()))
        rank_sets(
            places,
            lambda place: what if place == first else _same_kind(place, what),
            data,
            archs,
            how,
            deo=deo,
            seed=seed,
            json=json,
            dry_run=dry_run,
        )
        return
    runs = {
        number: Path(place) if isinstance(what, SyntheticSet) and Path(place).is_dir() else None
        for number, place in places.items()
    }
    for run in filter(None, runs.values()):
        ranks.first(lambda run=run: check_results(run))
    kept = {number: _kept_in(keep_nets, number) for number in places}
    _check_networks(archs, data, list(filter(None, kept.values())))
    settings = {"nets": nets, "epochs": epochs, "dsa_strategy": dsa_strategy, "learning_rate": lr_net}
    constants = dict(named_values("--constant", constant)) or None
    of_recipe = {"training": training, "constants": constants, "groups": groups}
    of_protocol = {"teacher": teacher, "labels": labels}
    same = {
        **settings,
        **of_recipe,
        **of_protocol,
        "factor": factor,
        "ipc": ipc,
        "protocol": protocol,
        "device": device,
    }
    as_said = {"ipc": None if target == "whole" else ipc, "deo": deo, "protocol": protocol}
    if log and not any(runs.values()):
        raise ValueError(f"--log goes into a run's folder, and {target} is none")
    if dry_run:
        plan_of_evaluation(what, data, archs, len(places), {**same, "seed": seed}, json)
        return
    rows = {}
    for number, place in places.items():
        what = what if number in (None, next(iter(places))) else _same_kind(place, what)
        # Networks of other seeds for every set, or what they have in common would not vary over distillations.
        how = same | {"seed": seed + (number or 0), "keep_nets": kept[number]}
        rows[number] = _rows(what, place, data, archs, how, as_said, runs[number], number is not None)
        _log_results(log, runs[number])
    everything = [row for of_set in rows.values() for row in of_set]
    images = "test set" if data.tested_on == "test" else "held-out training images"
    metrics = METRICS if published is None else published.figures
    print_results(everything, f"{data.name}, {images}, %, mean ± standard deviation over networks", metrics)
    over = print_repeats(rows, f"{data.name}, {images}, %, {len(rows)} distillations", metrics)
    ranks.first(lambda: add_results([*everything, *over], data, None, json))
    if published is not None:
        _print_protocol(protocol, published.note, settings | {"deo": deo})
    if "groups_from" in everything[0]:
        console.print(f"training {training}: groups of the set's images are {everything[0]['groups_from']}")
    of_groups = data.num_groups > 1 and (published is None or "deo_m" in published.figures)
    for row in (over or everything) if of_groups else []:
        console.print(report.group_table(row, data.class_names, data.group_names, full=full))


def _log_results(names: list[str], run: Path | None) -> None:
    """All results of a run, which its result.json has, by their numbers."""
    if names and run is not None and ranks.rank() == 0:
        results = report.read_results(run / report.RESULT)["rows"]
        found = [
            (number, numbers({name: row[name] for name in METRICS}, f"result/{row['arch']}/"))
            for number, row in enumerate(results)
        ]
        write_rows(names, run / "evaluations", {}, found)


def _kept_in(folder: Path | None, number: int | None) -> Path | None:
    """Where networks on a set are kept: each repeat's, whose files have the same names, in a folder of its own."""
    return folder if folder is None or number is None else folder_of_seed(folder, number)


def _check_networks(archs: Sequence[str | None], data: Dataset, kept: Sequence[Path]) -> None:
    """That the networks fit the data, and that there is a place for those that are kept."""
    if len(set(archs)) < len(archs) and kept:
        raise ValueError(f"--arch {','.join(map(str, archs))} names one twice: --keep-nets has one place for it")
    for name in filter(None, archs):
        for folder in kept:
            ranks.first(partial(api.check_keep_nets, folder, name))
        models.check(name, data.channels, data.num_classes, data.size)


def _print_protocol(name: str, note: str, settings: dict[str, Any]) -> None:
    """What a published protocol is, and what is other than it."""
    changed = {name: value for name, value in settings.items() if value not in (None, "range")}
    text = ", ".join(f"{name} {value}" for name, value in changed.items())
    console.print(f"protocol {name}{text and ' but for ' + text}: {note}")


def _same_kind(place: str, first: SyntheticSet | str) -> SyntheticSet | str:
    """What another seed of a folder of repeats, or of random images, is evaluated on."""
    if not isinstance(first, SyntheticSet):
        return first
    synthetic = api.load_synthetic(place)
    digests_of_data = [one.metadata.get("dataset_digest") for one in (first, synthetic)]
    if digests_of_data[0] != digests_of_data[1]:
        raise ValueError(f"{place} is of other data than the repeats before it")
    return synthetic


def _rows(
    what: SyntheticSet | str,
    place: str,
    data: Dataset,
    archs: Sequence[str | None],
    how: dict[str, Any],
    as_said: dict[str, Any],
    run: Path | None,
    repeated: bool,
) -> list[dict[str, Any]]:
    """A row of every network; of a repeat, those that its folder has already are not made again."""
    about = {"method": place, "debias": "none"}
    if isinstance(what, SyntheticSet):
        about = {name: what.metadata.get(name, "unknown") for name in about}
        about["trained"] = report.trained_networks(what.metadata)
    about |= {**as_said, "dataset": data.name, "digests": digests(what, data)}
    rows = []
    for arch in archs:
        settings = {**how, "arch": arch}
        row = measured(run, what, data, about, settings) if repeated else None
        if row is None:
            result = evaluate_with_bar(what, data, f"evaluating on {data.name}", **settings)
            row = named(report.result_row(result, **about), data)
            ranks.first(lambda row=row: add_results([row], data, run, None))
        rows.append(row)
    return rows


def evaluate_with_bar(what: SyntheticSet | str, data: Dataset, title: str, **settings: Any) -> Evaluation:
    """:func:`fastdd.evaluate` under a progress bar."""
    with bar(title) as update:

        def progress(done: int, total: int, accuracy: float) -> None:
            update(done, total, f"networks, accuracy {accuracy:.1f} so far")

        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DoubtfulFigures)  # the notes of the table are theirs
            return api.evaluate(what, data, progress=progress, **settings)


def print_results(rows: Sequence[dict[str, Any]], title: str | None = None, metrics: Sequence[str] = METRICS) -> None:
    """A table of the figures of ``metrics``, and below it what may be wrong with them."""
    console.print(report.table(rows, title, metrics))
    for note in report.notes(rows):
        console.print(f"warning: {note}")


def to_evaluate(
    target: str, dataset: str | None, data_root: Path | None, options: dict[str, Any], ipc: int | None
) -> tuple[SyntheticSet | str, Dataset, int | None]:
    """What to evaluate, the data set to do it on, and the IPC; a set's own data set and IPC where none are given."""
    if target in ("random", "whole"):
        return target, load_dataset(dataset, data_root, options), ipc
    synthetic = api.load_synthetic(target)
    ipc_of_set = synthetic.metadata.get("ipc", ipc)
    if ipc not in (None, ipc_of_set):
        raise ValueError(f"{target} has an IPC of {ipc_of_set}: --ipc {ipc} is for random")
    return synthetic, with_dataset(target, synthetic, dataset, data_root, options), ipc_of_set


def named(row: dict[str, Any], data: Dataset) -> dict[str, Any]:
    """The row with the names of the data set's classes and groups, as a set may number its classes otherwise."""
    return {**row, "class_names": list(data.class_names), "group_names": list(data.group_names)}


def add_results(rows: list[dict[str, Any]], data: Dataset, run: Path | None, json: Path | None) -> None:
    """Add results to those that a run's folder has, and write them to ``json``; with the data set's names."""
    rows = [named(row, data) for row in rows]
    if run is not None:
        path = run / report.RESULT
        with files.alone_in(run):  # evaluations may end together
            old = report.read_results(path)["rows"] if path.exists() else []
            report.write_json(path, report.document([*old, *rows], dataset_digest=data.digest()))
    if json is not None:
        report.write_json(json, report.document(rows, dataset_digest=data.digest()))
