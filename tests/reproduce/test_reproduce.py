"""Recipes are what the papers say; cells are run once; the comparison's figures are what they claim."""

import csv
import io
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from fastdd import data as datasets
from fastdd import reproduce
from fastdd.data import catalog
from fastdd.debias import MODES
from fastdd.evaluation import Evaluation, GroupCounts, Protocol
from fastdd.methods import configure
from fastdd.reproduce.comparison import lines

# What is measured here does not depend on how much the quick budget spends.
BUDGETS = {
    "full": reproduce.BUDGETS["full"],
    "quick": replace(reproduce.BUDGETS["quick"], evaluation={"nets": 2, "epochs": 150}),
}
EVERY = [(paper, name) for paper in reproduce.paper_names() for name in reproduce.read_paper(paper)]


@pytest.mark.parametrize(("paper", "name"), EVERY)
def test_every_cell_can_be_run(paper, name):
    table = reproduce.read_paper(paper)[name]
    for cell in [*table.cells, *table.also]:
        assert cell.dataset in datasets.available()
        assert {*cell.options, *cell.test_options} <= catalog.options(cell.dataset).keys()
        assert (cell.what is None) != (cell.method is None)
        if cell.method:
            assert cell.debias in MODES or cell.debias == "kde"
            settings = {name: value for name, value in cell.settings.items() if name != "groups"}
            configure(dataset=cell.dataset, ipc=cell.ipc, method=cell.method, debias=cell.debias, **settings)
        for value in cell.published.values():
            figures = [] if value is None else value if isinstance(value, tuple) else [value]
            assert all(0 <= figure <= 100 for figure in figures)


def test_figures_are_those_of_the_papers():
    cells = {(cell.row, cell.column): cell for cell in reproduce.read_paper("fairdd")["table1"].cells}
    assert cells["c-mnist-fg:10", "DM"].published == {"accuracy": 25.01, "deo_m": 100, "deo_a": 99.96}
    assert cells["bffhq:100", "DC+FairDD"].published == {"accuracy": 68.72, "deo_m": 54.72, "deo_a": 46.64}
    assert cells["c-mnist-fg:10", "IDC"].published == {"accuracy": 53.06, "deo_m": 100, "deo_a": 91.45}
    assert cells["bffhq:100", "DREAM+FairDD"].published == {"accuracy": 63.64, "deo_m": 10.24, "deo_a": 7.12}
    assert cells["c-mnist-fg:10", "IDC+FairDD"].evaluation == {"protocol": "idc"}
    cell = next(
        cell
        for cell in reproduce.read_paper("kde")["table1"].cells
        if (cell.row, cell.column) == ("cmnist-lff:5:10", "DM+KDE")
    )
    assert (cell.published, cell.options, cell.ipc) == ({"accuracy": (86.5, 1.2)}, {"bias_ratio": 0.95}, 10)
    cross = reproduce.select(reproduce.read_paper("fairdd")["table3"], ["c-mnist-fg:50:VGG11"], ["DM"]).cells[0]
    assert (cross.evaluation, cross.published["accuracy"]) == ({"arch": "VGG11"}, 75.22)
    tables = reproduce.read_paper("fairdd")
    mean = next(one for one in tables["table3"].means if (one.row, one.column) == ("celeba:50:Mean", "DM"))
    assert (mean.rows, mean.published) == ("celeba:50:*", {"deo_m": 31.1, "deo_a": 30.25, "accuracy": 62.4})
    swapped = reproduce.select(tables["table11"], ["celeba:10:Male"], ["DC"]).cells[0]
    assert swapped.options == {"target": "Male", "protected": "Blond_Hair"}
    assert swapped.published == {"deo_m": 25.94, "deo_a": 15.11, "accuracy": 72.07}
    mtt = reproduce.select(tables["table23"], ["c-fmnist-bg:50"]).cells[0]
    assert (mtt.method, mtt.published) == ("mtt", {"deo_m": 96.6, "deo_a": 62.02, "accuracy": 70.32})


def test_weights_as_the_paper_writes_them_are_made_once(table, tmp_path):
    paper = reproduce.read_paper("kde")["table1"]
    cell, _ = reproduce.select(paper, ["cmnist-lff:5:10"], ["DM+KDE as written", "DSA+KDE as written"]).cells
    assert cell.published == {"accuracy": (86.5, 1.2)}
    assert cell.weights == {"encoder": "resnet18", "variance": 0.1, "temperature": 0.1, "score": "none", "clip": None}
    assert not [one for one in paper.cells if one.weights]
    bench, made = Bench(), []

    def kde_weights(data, **settings):
        made.append(settings)
        return SimpleNamespace(save=lambda path: path.touch())

    work = {name: getattr(bench, name) for name in ("distill", "train_experts", "evaluate")}
    shop = reproduce.Workshop(tmp_path, BUDGETS["quick"], seed=3, kde_weights=kde_weights, **work)
    own = replace(table.cells[0], debias="kde")
    for one in (replace(own, weights=cell.weights), replace(own, weights=cell.weights, method="dsa"), own):
        shop.do(one)
    assert made == [{**cell.weights, "seed": 3, "device": "auto"}]
    given = [settings.get("weights") for _, settings in bench.distilled]
    assert given[0] == given[1] == shop.weights_file(replace(own, weights=cell.weights))
    assert given[2] is None
    assert len({name for name, _ in bench.distilled}) == 3


def test_whole_sets_are_trained_as_their_paper_says(tmp_path):
    full, quick = (shop_of(Bench(), tmp_path, budget) for budget in ("full", "quick"))
    (cell,) = reproduce.select(reproduce.read_paper("biased-dd")["table1"], ["cmnist-dd:0"], ["Full"]).cells
    assert full.evaluation(cell) == {"protocol": "biased-dd"}
    assert quick.evaluation(cell) == {"protocol": "biased-dd", "nets": 1, "epochs": 6}
    (cell,) = reproduce.select(reproduce.read_paper("fairdd")["table1"], ["c-mnist-fg:10"], ["Whole"]).cells
    assert full.evaluation(cell) == {"nets": 3, "epochs": 20, "dsa_strategy": "crop_cutout_flip_scale_rotate"}


def test_unknown_names_are_told():
    table = reproduce.read_paper("fairdd")["table9"]
    with pytest.raises(ValueError, match="no recipes for a paper 'dm'; one of: biased-dd, fairdd, kde, ncfm"):
        reproduce.read_paper("dm")
    assert reproduce.measured_elsewhere("fairdd", "table7") is None
    with pytest.raises(ValueError, match=r"fairdd table9 has no row 'mnist.*one of: c-mnist-fg:10, cifar10-s:10"):
        reproduce.select(table, ["mnist*"])
    with pytest.raises(ValueError, match="fairdd table9 has no column 'DSA'"):
        reproduce.select(table, columns=["DSA"])
    assert [cell.column for cell in reproduce.select(table, ["c-mnist*"]).cells] == ["DM", "DM+FairDD", "DM+KDE"]


class Bench:
    """Stands for the work of a cell: says what was asked for, and gives an evaluation of given accuracies."""

    def __init__(self):
        self.distilled, self.trained, self.evaluated = [], [], []

    def distill(self, data, *, out, **settings):
        self.distilled.append((out.name, settings))
        return SimpleNamespace()

    def train_experts(self, data, *, out, **settings):
        self.trained.append((out.name, settings))
        return out.name

    def evaluate(self, what, data, *, nets, **settings):
        self.evaluated.append((what, nets, settings))
        self.tested = data
        right = torch.tensor([[8, 6], [7, 9]])
        counts = tuple(GroupCounts(right + i % 2, torch.full((2, 2), 10)) for i in range(nets))
        return Evaluation("ConvNet", counts, 1.0, Protocol(epochs=settings.get("epochs", 1000)), 0)


@pytest.fixture
def table():
    """Two networks evaluate one set; and a random one."""
    first = reproduce.Cell("c-digits:2", "DM", "c-digits", 2, None, "dm", "none", 4, published={"accuracy": 70.0})
    return reproduce.Table(
        "paper",
        "table",
        "a table",
        ("accuracy",),
        (
            first,
            replace(
                first, row="c-digits:2:AlexNet", evaluation={"arch": "AlexNet"}, published={"accuracy": (71.0, 0.5)}
            ),
            replace(first, column="Random", what="random", method=None, published={"accuracy": None}),
        ),
    )


def test_a_set_is_distilled_once_and_nothing_is_done_twice(table, tmp_path):
    def run(budget="quick"):
        bench = Bench()
        shop = reproduce.Workshop(tmp_path, BUDGETS[budget], distill=bench.distill, evaluate=bench.evaluate)
        return bench, [shop.do(cell) for cell in table.cells]

    bench, outcomes = run()
    assert [settings["iterations"] for _, settings in bench.distilled] == [300, 300]
    assert len({name for name, _ in bench.distilled}) == 1  # the second resumes what the first finished
    assert [nets for _, nets, _ in bench.evaluated] == [2, 2, 2]
    assert bench.evaluated[1][2]["arch"] == "AlexNet"
    assert bench.evaluated[2][0] == "random"
    again, kept = run()
    assert not again.distilled
    assert not again.evaluated
    assert [one.row for one in kept] == [one.row for one in outcomes]
    full, _ = run("full")
    assert "iterations" not in full.distilled[0][1]
    assert full.evaluated[0][1] == 4


def shop_of(bench, folder, budget="quick"):
    work = {name: getattr(bench, name) for name in ("distill", "train_experts", "evaluate")}
    return reproduce.Workshop(folder, BUDGETS[budget], **work)


def test_experts_are_those_of_all_sets_that_they_serve(table, tmp_path):
    first = replace(table.cells[0], method="mtt")
    cells = [
        first,
        replace(first, ipc=5, row="c-digits:5"),
        replace(first, debias="fairdd", column="MTT+FairDD"),
        replace(first, options={"bias_ratio": 0.5}, row="c-digits:2:0.5"),
    ]
    bench = Bench()
    for cell in cells:
        shop_of(bench, tmp_path).do(cell)
    names = [name for name, _ in bench.trained]
    assert names[0] == names[1]  # IPC decides on experts only by ZCA, of CIFAR data
    assert len(set(names)) == 3
    assert [settings["experts"] for _, settings in bench.distilled] == names
    assert len({name for name, _ in bench.distilled}) == 4
    assert bench.trained[2][1]["debias"] == "fairdd"
    shortened = reproduce.BUDGETS["quick"].distillation["experts"]
    assert shortened.items() <= bench.trained[0][1].items()
    # Other experts make another run, whatever the run's own settings.
    shops = [shop_of(bench, tmp_path, budget) for budget in ("quick", "full")]
    assert len({shop.experts_folder(first) for shop in shops}) == 2
    assert shops[0].experts_folder(table.cells[0]) is None


def test_a_budget_shortens_slow_networks_further_and_recipes_win(table, tmp_path):
    shop, first = shop_of(Bench(), tmp_path), table.cells[0]
    plain, slow, own = (
        shop.distillation(replace(first, settings=settings))["iterations"]
        for settings in ({}, {"arch": "ViT1"}, {"arch": "ViT1", "iterations": 7})
    )
    assert (plain, own) == (300, 7)
    assert slow < plain
    assert shop.evaluation(replace(first, settings={"arch": "ViT1"}))["epochs"] < shop.evaluation(first)["epochs"]


def test_sets_tested_with_fewer_groups_are_distilled_once(table, tmp_path):
    bench, first = Bench(), table.cells[0]
    shop = shop_of(bench, tmp_path)
    shop.do(first)
    assert set(bench.tested.test.groups) == set(range(10))
    shop.do(replace(first, row="c-digits:2:4", test_options={"missing_groups": 4}))
    assert set(bench.tested.test.groups) == set(range(6))
    assert len({name for name, _ in bench.distilled}) == 1
    assert len(list((tmp_path / "results").iterdir())) == 2


def test_means_are_over_all_rows_or_left_out(table, tmp_path):
    table = replace(table, means=(reproduce.Mean("Mean", "DM", "c-digits:2*", {"accuracy": 70.5}),))
    bench = Bench()
    shop = shop_of(bench, tmp_path)
    outcomes = [shop.do(cell) for cell in table.cells]
    found = reproduce.comparisons(table, outcomes)
    assert [one.row for one in found] == ["c-digits:2", "c-digits:2:AlexNet", "c-digits:2", "Mean"]
    assert (found[-1].ours, found[-1].difference, found[-1].nets) == (pytest.approx(80), pytest.approx(9.5), 4)
    assert lines(table, found)[-1] == ["Mean", "DM", "80.0 (70.5, +9.5)"]
    assert len(reproduce.comparisons(table, outcomes[:1])) == 1
    assert reproduce.select(table, ["c-digits:2"]).means == ()
    assert reproduce.select(table, columns=["DM"]).means == table.means


def test_comparison_has_difference_and_interval(table, tmp_path):
    bench = Bench()
    shop = reproduce.Workshop(tmp_path, BUDGETS["quick"], distill=bench.distill, evaluate=bench.evaluate)
    outcomes = [shop.do(cell) for cell in table.cells]
    found = reproduce.comparisons(table, outcomes)
    # Accuracies 75 and 85: mean 80, sample deviation 10/sqrt(2), standard error 5, t(0.975, 1) = 12.706.
    assert found[0].ours == pytest.approx(80)
    assert found[0].interval == pytest.approx(12.706 * 5, rel=1e-4)
    assert found[0].difference == pytest.approx(10)
    assert (found[2].published, found[2].difference) == (None, None)
    printed = lines(table, found)
    assert printed[1] == ["c-digits:2:AlexNet", "DM", "80.0 ± 63.5 (71.0 ± 0.5, +9.0)"]
    assert printed[2] == ["c-digits:2", "Random", "80.0 ± 63.5"]
    rows = list(csv.DictReader(io.StringIO(reproduce.csv_text(table, outcomes))))
    assert rows[0]["published"] == "70"
    assert rows[2]["published"] == ""
    assert "| c-digits:2 | DM | 80.0 ± 63.5 (70.0, +10.0) |" in reproduce.markdown(table, outcomes, "note")


def test_repeats_have_an_interval_over_distillations_and_paired_differences(table, tmp_path):
    class Seeded(Bench):
        """Accuracies of two networks: 70 and 80 with seed 0, 80 and 90 with seed 1; FairDD 10 and 12 above."""

        def evaluate(self, what, data, *, nets, seed, **settings):
            fair = self.distilled[-1][1]["debias"] == "fairdd"
            counts = [70 + 10 * seed + 10 * i + fair * (10 - 4 * seed) for i in range(nets)]
            of_nets = tuple(
                GroupCounts(torch.tensor([[number, number]]), torch.tensor([[100, 100]])) for number in counts
            )
            return Evaluation("ConvNet", of_nets, 1.0, Protocol(), seed)

    plain = table.cells[0]
    fair = replace(plain, column="DM+FairDD", debias="fairdd", published={"accuracy": None})
    whole = replace(plain, column="Whole", what="whole", method=None)
    table = replace(table, cells=(plain, fair, whole))
    outcomes = []
    for cell in table.cells:
        seeds = reproduce.seeds_of(cell, [0, 1])
        assert seeds == ([0] if cell.what == "whole" else [0, 1])
        for seed in seeds:
            bench = Seeded()
            work = {name: getattr(bench, name) for name in ("distill", "train_experts", "evaluate")}
            bench.distilled.append(("", {"debias": "none"}))
            outcomes.append(reproduce.Workshop(tmp_path, BUDGETS["quick"], seed=seed, **work).do(cell))
    assert len({outcome.run for outcome in outcomes[:4]}) == 4
    found = reproduce.comparisons(table, outcomes)
    # DM: means 75 and 85; t(0.975, 1) = 12.706 and standard error 5. Within: 10/sqrt(2); between: 50 - 50/2 = 25.
    assert (found[0].ours, found[0].nets, found[0].distillations) == (80, 4, 2)
    assert found[0].interval == pytest.approx(12.706 * 5, rel=1e-4)
    assert (found[0].between, found[0].within) == (pytest.approx(5), pytest.approx(50**0.5))
    assert found[0].std == pytest.approx(50**0.5)  # of 70, 80, 80, 90, as published code has it
    (less,) = reproduce.differences(table, outcomes)
    # Differences 10 and 6: mean 8, standard error 2.
    assert (less.column, less.other, less.mean, less.pairs) == ("DM+FairDD", "DM", pytest.approx(8), 2)
    assert less.interval == pytest.approx(12.706 * 2, rel=1e-4)
    text = reproduce.markdown(table, outcomes, "note")
    assert "over 2 distillations, seeds 0, 1" in text
    assert "Of whole training sets it is over networks." in text
    assert "| c-digits:2 | DM+FairDD less DM | +8.0 ± 25.4 |" in text
    rows = list(csv.DictReader(io.StringIO(reproduce.csv_text(table, outcomes))))
    assert [(row["column"], row["distillations"]) for row in rows] == [
        ("DM", "2"),
        ("DM+FairDD", "2"),
        ("Whole", "1"),
        ("DM+FairDD less DM", "2"),
    ]


def test_tables_repeat_as_often_as_their_papers(table):
    repeats = {name: next(iter(reproduce.read_paper(name).values())).repeats for name in reproduce.paper_names()}
    # FairDD's checklist: five runs; Biased-DD, section 4.2: three times. The others do not say.
    assert (repeats["fairdd"], repeats["biased-dd"], repeats["kde"]) == (5, 3, 1)
