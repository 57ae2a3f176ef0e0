"""``fastdd distill`` and ``fastdd evaluate``."""

from pathlib import Path
from typing import Any

from fastdd import api, models, report
from fastdd import data as datasets
from fastdd.cli.console import bar, console
from fastdd.core import files, ranks
from fastdd.data import Dataset, SyntheticSet
from fastdd.evaluation import METRICS, Evaluation, published_protocol
from fastdd.experts.store import Experts
from fastdd.session import Progress


def load_dataset(name: str | None, root: Path | None, options: dict[str, Any]) -> Dataset:
    """The data set that the options name."""
    if name is None:
        raise ValueError(f"--dataset is missing; one of: {', '.join(datasets.available())}, or a packed store's folder")
    return datasets.load(name, root, **options)


def distill_with_bar(data: Dataset, title: str, **settings: Any) -> SyntheticSet:
    """:func:`fastdd.distill` under a progress bar; prints its evaluations on the way."""
    first: list[Progress] = []
    announced = False
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

        calls = {"progress": progress, "embedding_progress": embedding_progress, "eval_progress": eval_progress}
        return api.distill(data, **calls, **settings)


def evaluate_with_bar(what: SyntheticSet | str, data: Dataset, title: str, **settings: Any) -> Evaluation:
    """:func:`fastdd.evaluate` under a progress bar."""
    with bar(title) as update:

        def progress(done: int, total: int, accuracy: float) -> None:
            update(done, total, f"networks, accuracy {accuracy:.1f} so far")

        return api.evaluate(what, data, progress=progress, **settings)


def run_distill(
    *,
    dataset: str | None,
    data_root: Path | None,
    options: dict[str, Any],
    out: Path | None,
    weights: Path | None,
    groups: str | None,
    experts: Path | None,
    debias: str | None,
    evaluation: dict[str, Any] | None,
    json: Path | None,
    **settings: Any,
) -> None:
    if json is not None:
        ranks.first(lambda: files.check_writable(json))
    data = load_dataset(dataset, data_root, options)
    method, ipc = settings["method"], settings["ipc"]
    trained = None if experts is None else Experts.open(experts)
    debias = debias or (trained.manifest["config"]["debias"] if trained else "none")
    out = out or Path("runs") / f"{method}-{debias}-{data.name}-{ipc}"
    for option, given, modes in (("weights", weights, "kde"), ("groups", groups, "fairdd")):
        if given is not None and not debias.startswith(modes):
            raise ValueError(f"--{option} is for --debias {modes}, not {debias}")
    title = f"{method} {debias} {data.name}"
    synthetic = distill_with_bar(
        data, title, out=out, weights=weights, groups=groups, experts=trained, debias=debias, **settings
    )
    if "kde" in synthetic.metadata:
        console.print(report.weight_summary(synthetic.metadata["kde"]["diagnostics"]))
    rows = []
    if evaluation is not None:
        result = evaluate_with_bar(
            synthetic, data, "evaluation", seed=settings["seed"], device=settings["device"], **evaluation
        )
        rows.append(report.result_row(result, dataset=data.name, method=method, debias=debias, ipc=ipc))
        console.print(report.table(rows))
    ranks.first(lambda: _write(rows, data, out, json))
    console.print(
        f"{len(synthetic.images)} images in {out / 'synthetic.safetensors'}, picture in {out / 'preview.png'}"
    )


def run_evaluate(
    *,
    target: str,
    dataset: str | None,
    data_root: Path | None,
    options: dict[str, Any],
    archs: list[str | None],
    deo: str,
    json: Path | None,
    ipc: int | None,
    protocol: str | None,
    **settings: Any,
) -> None:
    published = None if protocol is None else published_protocol(protocol)
    if deo not in ("range", "pairwise"):
        raise ValueError(f"unknown DEO definition {deo!r}; one of: range, pairwise")
    archs = [arch if arch is None else models.canonical_name(arch) for arch in archs]
    if json is not None:
        ranks.first(lambda: files.check_writable(json))
    what, data, ipc = to_evaluate(target, dataset, data_root, options, ipc)
    run = Path(target) if isinstance(what, SyntheticSet) and Path(target).is_dir() else None
    if run is not None:
        ranks.first(lambda: _check_results(run))
    for arch in archs:
        if arch is not None:
            models.check(arch, data.channels, data.num_classes, data.size)
    about = {"method": target, "debias": "none"}
    if isinstance(what, SyntheticSet):
        about = {name: what.metadata.get(name, "unknown") for name in about}
    rows = []
    for arch in archs:
        title = f"evaluating on {data.name}"
        result = evaluate_with_bar(what, data, title, arch=arch, ipc=ipc, protocol=protocol, **settings)
        of = None if target == "whole" else ipc
        rows.append(report.result_row(result, dataset=data.name, ipc=of, deo=deo, protocol=protocol, **about))
    images = "test set" if data.tested_on == "test" else "held-out training images"
    title = f"{data.name}, {images}, %, mean ± standard deviation over networks"
    console.print(report.table(rows, title, METRICS if published is None else published.figures))
    if published is not None:
        given = {name: settings[name] for name in ("nets", "epochs", "dsa_strategy", "learning_rate")} | {"deo": deo}
        own = ", ".join(f"{name} {value}" for name, value in given.items() if value not in (None, "range"))
        console.print(f"protocol {protocol}{own and ' but for ' + own}: {published.note}")
    for row in rows if data.num_groups > 1 and (published is None or "deo_m" in published.figures) else []:
        console.print(report.group_table(row, data.class_names, data.group_names))
    ranks.first(lambda: _write(rows, data, run, json))


def to_evaluate(
    target: str, dataset: str | None, data_root: Path | None, options: dict[str, Any], ipc: int | None
) -> tuple[SyntheticSet | str, Dataset, int | None]:
    """What to evaluate, the data set to do it on, and the IPC; a set's own data set and IPC where none are given."""
    if target in ("random", "whole"):
        return target, load_dataset(dataset, data_root, options), ipc
    made = api.load_synthetic(target)
    own = made.metadata.get("ipc", ipc)
    if ipc not in (None, own):
        raise ValueError(f"{target} has an IPC of {own}: --ipc {ipc} is for random")
    dataset = dataset or made.metadata.get("dataset")
    if dataset is not None and dataset == made.metadata.get("dataset"):
        options = datasets.built_with(made.metadata, dataset) | options
    return made, load_dataset(dataset, data_root, options), own


def _check_results(run: Path) -> None:
    """That the run's results can be read, and others written beside them."""
    files.check_writable(run / report.RESULT)
    if (run / report.RESULT).exists():
        report.read_json(run / report.RESULT)


def _write(rows: list[dict[str, Any]], data: Dataset, run: Path | None, json: Path | None) -> None:
    """Add results to those that a run's folder has, and write them to ``json``."""
    if run is not None:
        path = run / report.RESULT
        old = report.read_json(path)["rows"] if path.exists() else []
        report.write_json(path, report.document([*old, *rows], dataset_digest=data.digest()))
    if json is not None:
        report.write_json(json, report.document(rows, dataset_digest=data.digest()))
