"""``fastdd report``, ``fastdd reproduce`` and protocols by name, with next to no work in them."""

import json
import re
from dataclasses import replace

import pytest

from fastdd import api, reproduce
from fastdd.cli.plan import time_text
from fastdd.data import SyntheticSet, load
from fastdd.data.initial import random_set
from fastdd.report import document, read_json, write_json
from fastdd.reproduce.budgets import Budget
from fastdd.session import estimate


@pytest.fixture
def made(run, tmp_path):
    """A run's folder, not evaluated yet."""
    small = ("--iterations", 2, "--width", 4, "--ipc", 1, "--dataset", "c-digits")
    assert run("distill", *small, "--out", tmp_path / "RUN")[0] == 0
    return tmp_path / "RUN"


def test_a_report_lies_in_the_run_or_here_for_several(run, made, tmp_path):
    assert run("report", made)[1].endswith(f"report in {made / 'report.html'}\n")
    shown = (made / "report.html").read_text()
    assert "Not evaluated yet" in shown
    assert ", evaluated</dt>" not in shown
    assert "Without real images" not in shown
    code, out, _ = run("report", made, made / "synthetic.safetensors", "--embedding", "none")
    assert (code, out) == (0, "report in report.html\n")
    assert (tmp_path / "report.html").exists()


def test_a_class_can_be_highlighted_on_the_page_and_in_a_picture_beside_it(run, made, tmp_path):
    code, out, _ = run("report", made, "--highlight", 3, "--out", "page.html")
    assert (code, out) == (0, "what is covered of class 3 in page-coverage.png\nreport in page.html\n")
    assert "What is covered of class 3" in (tmp_path / "page.html").read_text()
    assert (tmp_path / "page-coverage.png").exists()
    for words, why in (
        (("--highlight", 12), "c-digits has no class '12' to highlight; it has 0, 1, 2, 3, 4, 5, 6, 7, 8, 9"),
        (("--highlight", 3, "--embedding", "none"), "--highlight shows images in the plane: --embedding pca or tsne"),
    ):
        assert run("report", made, *words, "--out", "other.html")[::2] == (2, f"error: {why}\n")
    assert not (tmp_path / "other.html").exists()


def test_runs_have_the_names_that_are_given_and_baselines_beside_them(run, made, tmp_path):
    other = made / "synthetic.safetensors"
    row = {"dataset": "c-digits", "method": "random", "debias": "none", "ipc": 1, "arch": "ConvNet", "nets": 1}
    row |= {name: {"mean": 12.5, "std": 0.0, "interval": None} for name in ("accuracy", "deo_m", "deo_a", "wa", "ba")}
    row |= {"epochs": 3, "seconds": 1.0, "group_accuracy": [[12.5] * 10] * 10}
    write_json(tmp_path / "random.json", document([row]))
    words = ("report", made, other, "--embedding", "none", "--baseline", tmp_path / "random.json")
    assert run(*words, "--name", "our <b>", "--name", "other")[0] == 0
    page = (tmp_path / "report.html").read_text()
    assert "<h1>our &lt;b&gt; and other: c-digits, IPC 1</h1>" in page
    assert '<th scope="row">random (baseline)</th>' in page
    assert "Not evaluated yet: our &lt;b&gt;" in page
    assert ", evaluated</dt>" not in page
    write_json(tmp_path / "mnist.json", document([row | {"dataset": "mnist"}]))
    (tmp_path / "none.json").write_text('{"schema": 1, "rows": [], "meta": {}}')
    for asked, why in (
        (("--name", "one"), "1 --name for 2 runs: give one for each RUN, in their order"),
        (("--name", "a", "--name", "a"), "--name 'a' tells no run from the others: give each RUN a name of its own"),
        (("--baseline", tmp_path / "mnist.json"), f"{tmp_path / 'mnist.json'} is of mnist, the runs are of c-digits"),
        (("--baseline", tmp_path / "none.json"), f"{tmp_path / 'none.json'} has no results: fastdd evaluate random"),
    ):
        code, _, err = run("report", made, other, *asked, "--out", tmp_path / "refused.html")
        assert (code, err.count("\n")) == (2, 1)
        assert err.startswith(f"error: {why}")
    assert not (tmp_path / "refused.html").exists()


def test_results_of_an_earlier_set_are_not_shown_as_the_sets(run, made):
    assert run("evaluate", made, "--nets", 1, "--epochs", 1, "--arch", "ConvNetW32")[0] == 0
    assert run("report", made, "--embedding", "none")[0] == 0
    assert "Without baselines: as many real images" in (made / "report.html").read_text()
    assert ", evaluated</dt>" in (made / "report.html").read_text()
    random_set(load("c-digits"), 2).save(made / "synthetic.safetensors")
    assert run("report", made, "--embedding", "none")[0] == 0
    page = (made / "report.html").read_text()
    assert "Not evaluated yet" in page
    assert "1 result in the folder of dm, c-digits, IPC 1 is of another set" in page
    assert ", evaluated</dt>" not in page


def test_a_report_without_the_data_set_says_so_and_of_nothing_is_one_line(run, made, tmp_path):
    known = SyntheticSet.load(made / "synthetic.safetensors")
    known.metadata["dataset"] = "mnist"
    known.save(tmp_path / "other.safetensors")
    code, out, _ = run("report", tmp_path / "other.safetensors", "--out", tmp_path / "other.html")
    assert code == 0
    assert "without real images and embeddings: MNIST needs its files" in out
    assert "Without real images and embeddings: MNIST needs its files" in (tmp_path / "other.html").read_text()
    code, _, err = run("report", tmp_path / "nowhere")
    assert (code, err) == (2, f"error: {tmp_path / 'nowhere'} does not exist\n")


def test_classes_of_the_last_evaluation_have_the_names_of_the_data_it_was_on(run, made, tmp_path):
    """Also where the set numbers them otherwise and the report has no data set."""
    own = SyntheticSet.load(made / "synthetic.safetensors")
    turned = {**own.metadata, "class_names": own.metadata["class_names"][::-1], "dataset": "elsewhere"}
    replace(own, labels=9 - own.labels, metadata=turned).save(made / "synthetic.safetensors")
    evaluation = ("--nets", 1, "--epochs", 1, "--dataset", "c-digits")
    assert run("evaluate", made, *evaluation)[0] == 0
    row = read_json(made / "result.json")["rows"][-1]
    (made / "config.yaml").unlink()  # which would name the data set
    for known in (True, False):
        if not known:  # as an earlier version wrote it, of a set from elsewhere
            old = {name: row[name] for name in row if name not in ("class_names", "group_names", "set_digest")}
            write_json(made / "result.json", document([old]))
            replace(own, metadata={**turned, "source": {"format": "dc"}}).save(made / "synthetic.safetensors")
        assert run("report", made)[0] == 0
        heat = (made / "report.html").read_text().split('class="heat ')[1].split("</table>")[0]
        names = re.findall(r'<th scope="row">(.*?)</th>', heat)
        assert names == (list("0123456789") if known else [f"class {number}" for number in range(10)])


def test_a_page_is_named_as_one(run):
    assert run("report", "r", "--out", "r.pdf")[::2] == (
        2,
        "error: the report is an HTML page: name it r.html, not r.pdf\n",
    )


@pytest.mark.parametrize(
    ("name", "content", "why"),
    [
        ("config.yaml", "run: [1, {", "config.yaml is not a run's configuration"),
        ("config.yaml", "a: &a [*a]", "config.yaml is not a run's configuration: its aliases stand for more than"),
        ("config.yaml", "hello", "config.yaml is not a run's configuration"),
        ("config.yaml", "run: {method: dm}", "config.yaml is not a run's configuration: "),
        ("metrics.jsonl", '{"step": 0, "loss": 1.0}\n{"st\n', "metrics.jsonl is damaged: line 2 is no row of it"),
        ("metrics.jsonl", '{"loss": 1.0}\n', "metrics.jsonl is damaged: line 1 is no row of it"),
        ("result.json", '{"schema": 1', "result.json is damaged"),
        ("result.json", "[]", "result.json is not a document of results"),
        ("result.json", '{"schema": 1, "rows": []}', "result.json is not a document of results"),
        ("result.json", '{"schema": 1, "rows": [{}], "meta": {}}', "result.json: a row has no method"),
        ("synthetic.safetensors", "nonsense", "synthetic.safetensors"),
    ],
)
def test_a_damaged_run_is_named_in_one_line_and_nothing_is_written(run, made, tmp_path, name, content, why):
    random_set(load("c-digits"), 1).save(tmp_path / "other.safetensors")
    (made / name).write_text(content)
    code, _, err = run("report", tmp_path / "other.safetensors", made, "--out", tmp_path / "page.html")
    assert code in (1, 2)
    assert err.startswith(f"error: {made}/")
    assert why in err
    assert err.count("\n") == 1
    assert not (tmp_path / "page.html").exists()


def test_a_run_that_goes_on_may_be_in_its_last_line(run, made, tmp_path):
    (made / "synthetic.safetensors").unlink()
    with open(made / "metrics.jsonl", "a") as file:
        file.write('{"step": 2, "lo')
    assert run("report", made, "--embedding", "none")[0] == 0
    assert "unfinished: 2 of 2 steps are logged" in (made / "report.html").read_text()
    (tmp_path / "empty").mkdir()
    code, _, err = run("report", made, tmp_path / "empty")
    assert (code, err) == (2, f"error: {tmp_path / 'empty'} holds no run and no synthetic set\n")


def test_a_protocol_shows_its_figures_and_what_to_know(run, made, tmp_path):
    code, out, _ = run("evaluate", made, "--protocol", "mtt", "--nets", 1, "--epochs", 1, "--json", tmp_path / "f.json")
    assert code == 0
    assert "DEO_M" not in out
    assert json.loads((tmp_path / "f.json").read_text())["rows"][0]["protocol"] == "mtt"
    assert "protocol mtt but for nets 1, epochs 1: MTT, with the learned step size." in out
    code, _, err = run("evaluate", made, "--protocol", "xyz")
    assert (code, err) == (
        2,
        "error: unknown protocol 'xyz'; one of: dc, fairdd, mtt, idc, ncfm, rded, dcbench, ddranking, biased-dd\n",
    )


@pytest.fixture
def recipes(monkeypatch):
    """A paper of one table on the embedded digits, and a budget of next to nothing."""
    cells = tuple(
        reproduce.Cell("c-digits:1", column, "c-digits", 1, what, method, "none", 2, published={"accuracy": 50.0})
        for column, what, method in (("Random", "random", None), ("DM", None, "dm"))
    )
    table = reproduce.Table("paper", "table1", "a table", ("accuracy",), cells)
    monkeypatch.setattr(reproduce, "read_paper", lambda name: {"table1": table})
    monkeypatch.setattr(reproduce, "paper_names", lambda: ["paper"])
    short = {"dm": {"iterations": 1, "width": 4}}
    budget = Budget("quick", "Shortened.", short, {"nets": 1, "epochs": 1}, {})
    monkeypatch.setattr(reproduce, "BUDGETS", {"full": reproduce.BUDGETS["full"], "quick": budget})


@pytest.mark.usefixtures("recipes")
def test_rows_of_a_table_are_run_once_and_stand_beside_the_published(run, tmp_path):
    words = ("reproduce", "paper", "table1", "--budget", "quick", "--out", tmp_path / "R")
    assert run("reproduce")[1].splitlines()[-2].split()[:6] == ["paper", "table1", "1", "0/2", "1", "0"]
    code, out, _ = run(*words)
    assert code == 0
    assert "Shortened." in out
    text = (tmp_path / "R" / "paper-table1-quick.md").read_text()
    assert "(50.0, " in text
    page = (tmp_path / "R" / "paper-table1-quick.html").read_text()
    assert "paper table1: a table" in page
    # The run's result and its real images are on the page, though they do not lie in its folder.
    assert "Accuracy of every class in every group" in page
    assert "Features of a random" in page
    assert "Without real images" not in page
    results = sorted((tmp_path / "R" / "results").iterdir())
    before = [path.stat().st_mtime_ns for path in results]
    assert run(*words)[0] == 0
    assert [path.stat().st_mtime_ns for path in results] == before
    assert [line.split()[-1] for line in run(*words, "--list")[1].splitlines()[2:4]] == ["done", "done"]
    assert (
        run("reproduce", "--list", "--budget", "quick", "--out", tmp_path / "R")[1].splitlines()[-2].split()[3] == "2/2"
    )


def test_experts_of_a_table_are_estimated_trained_and_kept(run, tmp_path, monkeypatch):
    monkeypatch.setattr(estimate, "_SECONDS", 0.01)
    cells = tuple(
        reproduce.Cell(f"c-digits:{ipc}", "MTT", "c-digits", ipc, None, "mtt", "none", 1, published={"accuracy": 50.0})
        for ipc in (1, 2)
    )
    table = reproduce.Table("paper", "table1", "a table", ("accuracy",), cells)
    monkeypatch.setattr(reproduce, "read_paper", lambda name: {"table1": table})
    short = {
        "experts": {"num_experts": 1, "epochs": 2, "width": 4, "eval_every": 0},
        "mtt": {"iterations": 1, "syn_steps": 1, "max_start_epoch": 1, "expert_epochs": 1},
    }
    monkeypatch.setattr(reproduce, "BUDGETS", {"quick": Budget("quick", "", short, {"nets": 1, "epochs": 1}, {})})
    trained = []
    whole = api.estimate_experts
    monkeypatch.setattr(api, "estimate_experts", lambda *args, **given: trained.append(given) or whole(*args, **given))
    words = ("reproduce", "paper", "table1", "--budget", "quick", "--out", tmp_path / "R")
    out = run(*words, "--list")[1]
    assert [line.split()[2] for line in out.splitlines()[2:4]] == ["missing", "missing"]
    assert [given["width"] for given in trained] == [4]  # one training, for both
    assert run("reproduce", "--budget", "quick")[1].splitlines()[-2].split()[2:6] == ["2", "0/2", "2", "1"]
    assert run(*words, "--rows", "c-digits:1")[0] == 0
    (experts,) = (tmp_path / "R" / "experts").iterdir()
    before = (experts / "manifest.json").stat().st_mtime_ns
    out = run(*words, "--list")[1]
    assert [line.split()[2] for line in out.splitlines()[2:4]] == ["done", "missing"]
    assert len(trained) == 1
    assert run(*words)[0] == 0
    assert (experts / "manifest.json").stat().st_mtime_ns == before
    assert len(list((tmp_path / "R" / "runs").iterdir())) == 2


def test_weights_of_a_table_are_estimated_once_as_they_are_made(run, tmp_path, monkeypatch):
    written = {"encoder": "resnet18", "score": "none"}
    cells = tuple(
        reproduce.Cell(f"c-digits:{ipc}", name, "c-digits", ipc, None, "dm", "kde", 1, weights=weights)
        for ipc, name, weights in ((1, "written", written), (2, "written", written), (1, "ours", {}))
    )
    table = reproduce.Table("paper", "table1", "a table", ("accuracy",), cells)
    monkeypatch.setattr(reproduce, "read_paper", lambda name: {"table1": table})
    monkeypatch.setattr(reproduce, "BUDGETS", {"quick": Budget("quick", "", {}, {"nets": 1}, {})})
    given, runs = [], []

    def taking(seconds, told):
        return lambda data, **arguments: told.append(arguments) or estimate.Estimate({"all": seconds}, 0, None, 0)

    monkeypatch.setattr(api, "estimate_weights", taking(5000.0, given))
    monkeypatch.setattr(api, "estimate", taking(100.0, runs))
    monkeypatch.setattr(api, "estimate_evaluation", taking(10.0, []))
    out = run("reproduce", "paper", "table1", "--budget", "quick", "--list", "--out", tmp_path / "R")[1]
    assert [one["encoder"] for one in given] == ["resnet18"]
    # The run of our weights trains its own encoder; one that is given its weights does not.
    assert [one.get("weights") is not None for one in runs] == [True, True, False]
    assert f"about {time_text(5000.0 + 3 * 110)} here" in out


def test_a_missing_data_set_is_told_before_the_work(run, tmp_path):
    words = ("reproduce", "fairdd", "table1", "--rows", "c-mnist-fg:10", "--budget", "quick", "--out", tmp_path / "R")
    code, _, err = run(*words)
    assert code == 2
    assert err.startswith("error: MNIST needs its files: give the folder that holds train-images-idx3-ubyte.gz")
    code, _, err = run(*words, "--data-root", tmp_path / "nowhere")
    assert (code, err) == (2, f"error: the data root {tmp_path / 'nowhere'} is not a folder\n")
    assert not (tmp_path / "R").exists()


@pytest.mark.usefixtures("recipes")
def test_what_can_not_be_reproduced_is_one_line(run, tmp_path):
    (tmp_path / "file").write_text("")
    for words, why in (
        (("paper", "table9"), "error: paper has no table 'table9'; one of: table1"),
        (("paper", "--rows", "x"), "error: --rows and --columns are a table's"),
        (("paper", "table1", "--budget", "some"), "error: unknown budget 'some'; one of: full, quick"),
        (("paper", "table1", "--budget", "quick", "--rows", "x"), "error: paper table1 has no row 'x'"),
        (("paper", "table1", "--budget", "quick", "--out", tmp_path / "file"), "error: "),
    ):
        code, _, err = run("reproduce", *words)
        assert code in (1, 2)
        assert err.startswith(why), err
        assert err.count("\n") == 1
