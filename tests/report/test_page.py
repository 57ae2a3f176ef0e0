"""The report page: what it says, and that a real browser shows it without complaint."""

import json
import re
import shutil
import subprocess
from dataclasses import replace
from html.parser import HTMLParser

import pytest
import torch

import fastdd
from fastdd import report
from fastdd.report.page import View, page
from fastdd.report.record import read_record

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.fixture(scope="module")
def data():
    return fastdd.data.load("c-digits")


@pytest.fixture(scope="module")
def runs(data, tmp_path_factory):
    """Two runs, one of them evaluated, with a class name that HTML must not read."""
    folder = tmp_path_factory.mktemp("runs")
    data = replace(data, class_names=("<b>zero</b>", *data.class_names[1:]))
    for debias in ("none", "fairdd"):
        made = fastdd.distill(data, method="dm", debias=debias, ipc=2, iterations=3, width=16, out=folder / debias)
    result = fastdd.evaluate(made, data, nets=2, epochs=1)
    row = report.result_row(result, dataset=data.name, method="dm", debias="fairdd", ipc=2)
    report.write_json(folder / "fairdd" / "result.json", report.document([row]))
    return folder


class Elements(HTMLParser):
    """Tags with their attributes."""

    def __init__(self, text):
        super().__init__()
        self.found = []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.found.append((tag, dict(attributes)))

    def all(self, tag):
        return [attributes for name, attributes in self.found if name == tag]

    def pictures(self):
        """Charts, without the signs of their legends."""
        return [attributes for attributes in self.all("svg") if attributes.get("class") != "sign"]


def test_a_run_is_shown_with_images_figures_groups_and_configuration(runs, data):
    text = page([read_record(runs / "fairdd")], data)
    tags = Elements(text)
    shown = [attributes["alt"] for attributes in tags.all("img") if attributes.get("alt", "").startswith("synthetic")]
    assert len(shown) == 20
    assert "&lt;b&gt;zero" in text
    assert "<b>zero" not in text
    assert len([a for a in tags.all("img") if a.get("alt", "").startswith("real")]) == 100
    row = json.loads((runs / "fairdd" / "result.json").read_text())["rows"][0]
    for name in ("accuracy", "deo_m", "deo_a", "wa", "ba"):
        assert f"<td>{row[name]['mean']:.1f} ± {row[name]['std']:.1f}</td>" in text
    assert len(re.findall(r'<td style="background', text)) == 100
    assert len(tags.pictures()) == 3  # the loss; embeddings by class and by group
    assert "<dt>batch_real</dt><dd>256</dd>" in text
    assert torch.__version__ in text


def test_classes_have_the_data_sets_numbers_beside_its_images(runs, data):
    record = read_record(runs / "none")
    names = list(reversed(data.class_names))
    record.synthetic.metadata["class_names"] = names
    text = page([record], data, view=View("none"))
    shown = [tag["alt"] for tag in Elements(text).all("img") if tag.get("alt", "").startswith("synthetic")]
    assert shown[0] == "synthetic 0 1"
    record.synthetic.metadata["class_names"] = [f"other {name}" for name in names]
    words = replace(data, class_names=tuple(f"digit {name}" for name in data.class_names))
    with pytest.raises(ValueError, match="'other 9' is no class of the data set"):
        page([record], words, view=View("none"))


def test_it_needs_nothing_from_elsewhere(runs, data):
    for tag, attributes in Elements(page([read_record(runs / "fairdd")], data)).found:
        for name in ("src", "href", "xlink:href"):
            link = attributes.get(name)
            assert link is None or link.startswith(("data:", "#")), (tag, link)


def test_several_runs_are_compared(runs, data):
    text = page([read_record(runs / name) for name in ("none", "fairdd")], data, view=View("none"))
    assert "<h1>dm and dm+fairdd: c-digits, IPC 2</h1>" in text
    assert text.count("<section") == 2
    assert len(Elements(text).pictures()) == 1
    assert '<div class="heads"><span>class</span><span>dm</span><span>dm+fairdd</span><span>real</span></div>' in text
    assert re.findall(r"<nav.*?</nav>", text, re.DOTALL)[0].count("<li>") == 5


def evaluation(iteration, accuracy, deo=30.0, nets=2, split="test"):
    """A row of evaluations.jsonl."""
    values = {"accuracy": accuracy, "deo_m": deo, "deo_a": deo}
    spread = {name: {"mean": mean, "std": None if mean is None else 0.25} for name, mean in values.items()}
    return {"iteration": iteration, "tested_on": split, "arch": "ConvNet", "nets": nets, "epochs": 7, **spread}


def course(text):
    """What is said of accuracy over iterations: the part of the page, its pictures, its lines of figures."""
    part = text[text.index('<h2 id="course"') :]
    part = part[: min(part.find(end) for end in ('<h2 id="images"', "<section") if end in part)]
    rows = re.findall(r'<tr><th scope="row">(.*?)</th>(.*?)</tr>', part, re.DOTALL)
    return part, Elements(part).pictures(), [[name, *re.findall(r"<td>(.*?)</td>", cells)] for name, cells in rows]


def test_accuracy_over_iterations_is_drawn_and_listed_for_every_run(runs, data):
    first, other = (read_record(runs / name) for name in ("none", "fairdd"))
    several = [replace(first, evaluations=[evaluation(0, 40.0), evaluation(3, 33.5)]), other]
    part, pictures, lines = course(page(several, data, view=View("none")))
    assert len(pictures) == 3
    assert re.findall("<figcaption>(.*?)<", part) == ["accuracy", "DEO_M", "DEO_A"]
    networks = ["2 x ConvNet, 7 epochs", "test"]
    assert lines == [
        ["dm", "0", "40.0 ± 0.2", "30.0 ± 0.2", "30.0 ± 0.2", *networks],
        ["dm", "3", "33.5 ± 0.2", "30.0 ± 0.2", "30.0 ± 0.2", *networks],
    ]
    assert "choosing by these points is choosing on the test set" in part
    # A run that has none leaves its colour to no other.
    blue, orange = (f"stroke: var(--c{number})" for number in range(2))
    assert blue in part
    assert orange not in part
    swapped, _, _ = course(page(several[::-1], data, view=View("none")))
    assert orange in swapped
    assert blue not in swapped


def test_without_evaluations_on_the_way_there_is_no_chart_of_them(runs, data):
    assert "Accuracy over iterations" not in page([read_record(runs / "fairdd")], data)


def test_figures_that_a_data_set_does_not_define_have_no_chart(runs):
    record = replace(read_record(runs / "none"), evaluations=[evaluation(0, 40.0, deo=None, split="validation")])
    part, pictures, lines = course(page([record], view=View("none")))
    assert len(pictures) == 1
    assert lines[0][2:] == ["40.0 ± 0.2", "-", "-", "2 x ConvNet, 7 epochs", "validation"]
    assert "on validation images, which were held out of the training images" in part
    assert "a set chosen by these points has its accuracy on the test set" in part


def test_a_curve_is_broken_where_other_networks_were_trained(runs):
    rows = [evaluation(0, 40.0), evaluation(2, 41.0), evaluation(4, 42.0, nets=5), evaluation(6, 43.0, nets=5)]
    part, _, _ = course(page([replace(read_record(runs / "none"), evaluations=rows)], view=View("none")))
    assert "2 x ConvNet, 7 epochs; 5 x ConvNet, 7 epochs (curves are broken where this changes)" in part
    lines = re.findall(r'<path d="([^"]*)"[^>]*style="fill: none; stroke: var\(--c0\)', part)
    assert [line.count("M") for line in lines] == [2, 2, 2]


def test_an_unfinished_run_says_so(runs, tmp_path, data):
    for name in ("config.yaml", "metrics.jsonl"):
        (tmp_path / name).write_text((runs / "none" / name).read_text())
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "metrics.jsonl").write_text("".join(lines[:2]) + lines[2][:5])
    row = json.dumps(evaluation(2, 51.25)) + "\n"
    (tmp_path / "evaluations.jsonl").write_text(row + row[:9])
    text = page([read_record(tmp_path)])
    assert "dm, c-digits, IPC 2 is unfinished: 2 of 3 steps are logged" in text
    assert [line[1:3] for line in course(text)[2]] == [["2", "51.2 ± 0.2"]]
    assert "Without real images and embeddings: no data set was given." in text
    assert ", evaluated" not in text


def test_what_does_not_fit_is_one_line(runs, data, tmp_path):
    record = read_record(runs / "none")
    with pytest.raises(ValueError, match=r"has images of 3x16x16 in 10 classes, small 3x16x16 in 11"):
        page([record], replace(data, name="small", class_names=(*data.class_names, "ten")))
    with pytest.raises(ValueError, match="embedding must be one of pca, tsne, none, not 'umap'"):
        page([record], data, view=View("umap"))
    with pytest.raises(ValueError, match="holds no run and no synthetic set"):
        read_record(tmp_path)


def test_names_are_shown_as_they_are(runs, data):
    names = ("cost $5 to $9", r"$\frac{1}$", "_hidden", "x_$^", "esc\x1b[2J", *data.class_names[5:])
    record = read_record(runs / "fairdd")
    renamed = replace(record.synthetic, metadata={**record.synthetic.metadata, "class_names": list(names)})
    data = replace(data, class_names=names, group_names=(*names[5:], *names[:5]))
    text = page([replace(record, synthetic=renamed)], data)
    assert all(text.count(f">{name}<") >= 2 for name in names[:4])
    assert "esc\ufffd[2J" in text
    assert "\x1b" not in text


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
def test_a_browser_shows_it_without_complaint(runs, data, tmp_path):
    file = tmp_path / "report.html"
    probe = """<script>addEventListener("load", () => {
      const broken = [...document.images].filter((image) => image.src && image.naturalWidth === 0).length;
      document.querySelector(".classes button").click();
      const dialog = document.querySelector("dialog");
      document.title = JSON.stringify({ broken, images: document.images.length, open: dialog.open,
        beside: dialog.querySelectorAll(".tiles img").length, name: document.getElementById("shown").textContent,
        wide: document.documentElement.scrollWidth > innerWidth });
    });</script></body>"""
    record = replace(read_record(runs / "fairdd"), evaluations=[evaluation(0, 40.0), evaluation(3, 50.0)])
    file.write_text(page([record], data).replace("</body>", probe), encoding="utf-8")
    command = [
        CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
        "--disable-component-update", "--disable-sync", f"--user-data-dir={tmp_path / 'profile'}",
        "--enable-logging=stderr", "--window-size=400,800", "--dump-dom", file.as_uri(),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert "CONSOLE" not in done.stderr
    seen = json.loads(re.search(r"<title>(.*?)</title>", done.stdout).group(1).replace("&quot;", '"'))
    assert seen["broken"] == 0
    assert seen["open"]
    assert seen["beside"] == 10
    assert seen["name"].endswith("zero</b> 1") or seen["name"].endswith("zero&lt;/b&gt; 1")
    assert not seen["wide"]


def test_images_over_iterations_are_a_class_a_row(data, tmp_path):
    fastdd.distill(data, ipc=2, iterations=9, width=4, batch_real=8, snapshots=4, out=tmp_path / "run")
    record = read_record(tmp_path / "run")
    text = page([record], data, view=View("none"))
    assert "Images over iterations" in text
    shown = [a["alt"] for a in Elements(text).all("img") if ", iteration " in a.get("alt", "")]
    assert shown[:5] == [*(f"0, iteration {at}" for at in (0, 1, 3, 9)), "1, iteration 0"]
    assert len(shown) == 40
    assert "Images over iterations" not in page([replace(record, snapshots=[])], data, view=View("none"))


def test_features_of_a_network_that_was_trained_on_the_set(runs, data, tmp_path):
    folder = tmp_path / "fairdd"
    shutil.copytree(runs / "fairdd", folder)
    data = replace(data, class_names=("<b>zero</b>", *data.class_names[1:]))
    view = View(features="trained", images=1)
    with pytest.raises(FileNotFoundError, match=r"has no trained networks: fastdd evaluate .* --keep-nets .*networks"):
        page([read_record(folder)], data, view=view)
    fastdd.evaluate(folder, data, nets=1, epochs=1, keep_nets=folder / "networks")
    text = page([read_record(folder)], data, view=view)
    found = re.search(
        r"Silhouette of the test images, in all dimensions: by class (-?[.\d]+), by group (-?[.\d]+);", text
    )
    explained = fastdd.explain(folder / "networks", data, features=5000, images=0, projection="none")
    assert float(found[1]) == pytest.approx(explained.silhouette_class, abs=0.05)  # 2,000 of 5,000 images
    assert float(found[2]) == pytest.approx(explained.silhouette_group, abs=0.05)
    shown = [a["alt"] for a in Elements(text).all("img") if a.get("alt", "").startswith("synthetic")]
    assert len(shown) == 10


def test_an_image_that_holds_several_is_shown_with_them(runs, data):
    record = read_record(runs / "none")
    made = record.synthetic
    several = replace(made, metadata=made.metadata | {"formation": 2})
    text = page([replace(record, synthetic=several)], data)
    shown = [a["alt"] for a in Elements(text).all("img") if a.get("alt", "").startswith("synthetic")]
    assert len(shown) == 20 * 5
    assert shown[5:10] == [f"{shown[5]}{part}" for part in ("", ", part 1", ", part 2", ", part 3", ", part 4")]
    assert "2 x 2 images in each" in text


@pytest.fixture(scope="module")
def trainings(tmp_path_factory):
    """Folders of a network that was trained in two stages with validation, and of one without."""
    folder, weights = tmp_path_factory.mktemp("trainings"), {"aligned": 0.25, "conflicting": 0.75}
    for name, use, kept in (("validated", "ffr", True), ("plain", "none", False)):
        (folder / name).mkdir()
        settings = fastdd.training.TrainSettings.configure(
            dataset="c-digits", training="lff", arch="ConvNet", epochs=2, use=use
        )
        header = {"train": settings.model_dump(), "inputs": "", "about": {}}
        (folder / name / "config.yaml").write_text(json.dumps(header))
        rows = []
        for number in range(4 if kept else 2):
            row = {
                "stage": "fake" if kept and number < 2 else "real",
                "epoch": number % 2 + 1,
                "loss": 2.0 - number / 8,
            }
            row |= {"accuracy": 50.0 + number, "wa": 20.0 + number, "ba": 45.0 + number} if kept else {}
            rows.append(row | {"weights": {"loss": weights, "partner": weights} if kept else {}, "seconds": 1.0})
        (folder / name / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "validated" / "network.safetensors").touch()
    return folder


def test_a_networks_training_is_shown_over_its_epochs(trainings):
    record = read_record(trainings / "validated")
    assert (record.name, record.steps, record.unfinished) == ("lff with ffr, c-digits", 4, "")
    text = page([record])
    captions = re.findall(r"<figcaption>(.*?)</figcaption>", text)
    figures = [f"{name} on validation images" for name in ("Accuracy", "WA", "BA")]
    weights = ["Weight in the loss", "Times that an image was the partner of another, in an epoch"]
    assert captions == ["Loss", *figures, *weights]
    assert len(Elements(text).pictures()) == 6
    assert text.count(">bias-conflicting<") == text.count(">bias-aligned<") == 2
    assert "Without real images" not in text
    lines = re.findall(r'<path d="([^"]*)"[^>]*style="fill: none; stroke: var\(--c0\)', text)
    assert [line.count("M") for line in lines].count(2) == 6  # broken between stages; the others are of legends
    assert "<dt>training</dt><dd>lff</dd>" in text


def test_without_validation_the_page_says_what_is_not_known(trainings):
    record = read_record(trainings / "plain")
    assert record.unfinished == "unfinished: 2 epochs are done"
    text = page([record, read_record(trainings / "validated")])
    assert "There is no network yet" in text
    assert "<h1>lff and lff with ffr: c-digits</h1>" in text
    alone = page([record])
    assert "accuracy over epochs is not known" in alone
    assert re.findall(r"<figcaption>(.*?)</figcaption>", alone) == ["Loss"]


def test_a_damaged_log_of_a_training_is_one_line(trainings, tmp_path):
    shutil.copytree(trainings / "plain", tmp_path / "network")
    for row in (
        {"stage": "real", "epoch": 1, "loss": 1, "weights": {"loss": {"aligned": 1}}},
        {"stage": "real", "epoch": 1, "loss": 1, "wa": "high"},
        {"stage": 1, "epoch": 1, "loss": 1},
        {"stage": "real", "epoch": 1},
    ):
        (tmp_path / "network" / "metrics.jsonl").write_text(json.dumps(row) + "\n")
        with pytest.raises(ValueError, match=r"metrics.jsonl is damaged: "):
            read_record(tmp_path / "network")
