"""``fastdd evaluate``."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from fastdd import api, models, report
from fastdd.cli.completion import joined, words
from fastdd.cli.console import console
from fastdd.cli.datasets import BiasRatio, Name, Options, Root, ValSplit, data_options, load_dataset, named_values
from fastdd.cli.loggers_option import Log
from fastdd.cli.options import EVALUATION, Command, Config, Device, DryRun, Full, Json, constants_option, new_app
from fastdd.cli.origin import with_dataset
from fastdd.cli.plan import plan_of_evaluation
from fastdd.cli.rank import PROTOCOL, Compat, Rates, WholeEpochs, check_options, parsed_rates, rank_sets
from fastdd.cli.repeats import SeedsText, check_results, digests, measured, print_repeats, targets
from fastdd.cli.results import add_results, evaluate_with_bar, named, print_results
from fastdd.core import files, ranks
from fastdd.core.text import one_of
from fastdd.data import Dataset, SyntheticSet
from fastdd.evaluation import METRICS, PROTOCOLS, published_protocol
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
        "or weights); of random with --labels hard only what is trained.",
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
    _check_deo(deo)
    archs = networks(arch)
    if json is not None:
        ranks.first(lambda: files.check_writable(json))
    of_ranking = {"rates": rates, "whole-epochs": whole_epochs, "compat": compat}
    others = {"factor": factor, "training": training, "constant": constant, "groups": groups, "keep-nets": keep_nets}
    check_options(protocol, of_ranking, others | {"log": log})
    options = data_options(data_option, bias_ratio=bias_ratio, val_split=val_split)
    places = targets(target, seeds)
    what, data, ipc = to_evaluate(next(iter(places.values())), dataset, data_root, options, ipc)
    how = {"ipc": ipc, "epochs": epochs, "dsa_strategy": dsa_strategy, "learning_rate": lr_net, "device": device}
    how |= {"teacher": teacher, "labels": labels}
    if protocol == PROTOCOL:
        how |= {"rounds": nets, "whole_epochs": whole_epochs, "rates": parsed_rates(rates), "compat": compat}
        _check_networks(archs, data, [])
        rank_sets(places, partial(_of_place, places, what), data, archs, how, deo, seed, json, dry_run)
        return
    how |= {"nets": nets, "factor": factor, "protocol": protocol, "training": training, "groups": groups}
    how["constants"] = dict(named_values("--constant", constant)) or None
    work = _Evaluations(what, data, places, archs, how, deo, seed, keep_nets, log or [])
    work.check(target)
    if dry_run:
        plan_of_evaluation(what, data, archs, len(places), {**how, "seed": seed}, json)
    else:
        _tell(work.rows(), work, json, full)


def _check_deo(definition: str) -> None:
    if definition not in ("range", "pairwise"):
        raise ValueError(f"unknown DEO definition {definition!r}; {one_of(definition, ('range', 'pairwise'))}")


def networks(text: str | None) -> list[str | None]:
    """The value of ``--arch``: None alone for the run's own network."""
    names = [models.canonical_name(name.strip()) for name in text.split(",")] if text else [None]
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise ValueError(f"--arch {text} names {twice[0]} twice: once is enough, --nets says how many are trained")
    return names


@dataclass
class _Evaluations:
    """What ``fastdd evaluate`` does but for protocol ddranking: every network on every set.

    Attributes:
        what: the first set, or ``random`` or ``whole``.
        places: where sets are, by the seed of their distillation; None for one that is no repeat.
        archs: networks; None for the set's own.
        how: arguments of :func:`fastdd.evaluate` that all share.
        deo: definition of DEO.
        keep_nets: folder of the trained networks.
        log: loggers, of sets that are runs.
    """

    what: SyntheticSet | str
    data: Dataset
    places: dict[int | None, str]
    archs: Sequence[str | None]
    how: dict[str, Any]
    deo: str
    seed: int
    keep_nets: Path | None
    log: list[str]

    @property
    def runs(self) -> dict[int | None, Path | None]:
        """Folders that take results; None where a set is a file, or images of the data set."""
        is_set = isinstance(self.what, SyntheticSet)
        return {
            number: Path(place) if is_set and Path(place).is_dir() else None for number, place in self.places.items()
        }

    def check(self, target: str) -> None:
        """ValueError or OSError for what would fail later: results that can't be kept, networks that do not fit."""
        runs = self.runs
        for run in filter(None, runs.values()):
            ranks.first(lambda run=run: check_results(run))
        kept = [_kept_in(self.keep_nets, number) for number in self.places]
        _check_networks(self.archs, self.data, list(filter(None, kept)))
        if self.log and not any(runs.values()):
            raise ValueError(f"--log goes into a run's folder, and {target} is none")

    def rows(self) -> dict[int | None, list[dict[str, Any]]]:
        """Rows of every set, a network a row; they are in the runs' folders too."""
        runs, rows = self.runs, {}
        as_said = {"ipc": self.how["ipc"], "deo": self.deo, "protocol": self.how["protocol"]}
        for number, place in self.places.items():
            what = _of_place(self.places, self.what, place)
            # Networks of other seeds for every set, or what they have in common would not vary over distillations.
            how = {**self.how, "seed": self.seed + (number or 0), "keep_nets": _kept_in(self.keep_nets, number)}
            repeated = number is not None
            rows[number] = _rows(what, place, self.data, self.archs, how, as_said, runs[number], repeated)
            _log_results(self.log, runs[number])
        return rows


def _tell(rows: dict[int | None, list[dict[str, Any]]], work: _Evaluations, json: Path | None, full: bool) -> None:
    """Print the tables of all rows, and write the rows to ``json``."""
    data, how = work.data, work.how
    published = None if how["protocol"] is None else published_protocol(how["protocol"])
    everything = [row for of_set in rows.values() for row in of_set]
    images = "test set" if data.tested_on == "test" else "held-out training images"
    metrics = METRICS if published is None else published.figures
    print_results(everything, f"{data.name}, {images}, %, mean ± standard deviation over networks", metrics)
    over = print_repeats(rows, f"{data.name}, {images}, %, {len(rows)} distillations", metrics)
    ranks.first(lambda: add_results([*everything, *over], data, None, json))
    if published is not None:
        settings = {name: how[name] for name in ("nets", "epochs", "dsa_strategy", "learning_rate")}
        _print_protocol(how["protocol"], published.note, settings | {"deo": work.deo})
    if "groups_from" in everything[0]:
        console.print(f"training {how['training']}: groups of the set's images are {everything[0]['groups_from']}")
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
    for name in filter(None, archs):
        for folder in kept:
            ranks.first(partial(api.check_keep_nets, folder, name))
        models.check(name, data.channels, data.num_classes, data.size)


def _print_protocol(name: str, note: str, settings: dict[str, Any]) -> None:
    """What a published protocol is, and what is other than it."""
    changed = {name: value for name, value in settings.items() if value not in (None, "range")}
    text = ", ".join(f"{name} {value}" for name, value in changed.items())
    console.print(f"protocol {name}{text and ' but for ' + text}: {note}")


def _of_place(places: dict[int | None, str], first: SyntheticSet | str, place: str) -> SyntheticSet | str:
    """What is evaluated of a seed of a folder of repeats, or of random images; ``first`` is that of the first."""
    if not isinstance(first, SyntheticSet) or place == next(iter(places.values())):
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


def to_evaluate(
    target: str, dataset: str | None, data_root: Path | None, options: dict[str, Any], ipc: int | None
) -> tuple[SyntheticSet | str, Dataset, int | None]:
    """What to evaluate, the data set to do it on, and the IPC; a set's own data set and IPC where none are given."""
    if target == "whole" and ipc is not None:
        raise ValueError(f"whole is all training images: --ipc {ipc} is for random")
    if target in ("random", "whole"):
        return target, load_dataset(dataset, data_root, options), ipc
    synthetic = api.load_synthetic(target)
    ipc_of_set = synthetic.metadata.get("ipc", ipc)
    if ipc not in (None, ipc_of_set):
        raise ValueError(f"{target} has an IPC of {ipc_of_set}: --ipc {ipc} is for random")
    return synthetic, with_dataset(target, synthetic, dataset, data_root, options), ipc_of_set
