"""The page for everyone: what its text must have, and, in a browser, what is seen at its widths and in its schemes."""

import json
import re
from collections import Counter
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise

import pytest
from browser import CHROMIUM, Browser, axe_core

import fastdd
from fastdd.data.initial import random_set
from fastdd.report.page import View, page
from fastdd.report.palette import contrast
from fastdd.report.record import Record

FIGURES = ("accuracy", "deo_m", "deo_a", "wa", "ba")
VOID = {"meta", "img", "link", "br", "path", "circle", "use", "image", "rect"}


def result(data, method, debias, ipc, digest=None):
    """A result of two networks; every accuracy, 0 to 100, is in a cell."""
    counts = data.test.counts(data.num_classes, data.num_groups)
    counts[0, 0] = 5
    about = {"dataset": data.name, "method": method, "debias": debias, "ipc": ipc, "arch": "ConvNet", "nets": 2}
    figures = {name: {"mean": 40.0, "std": 1.0, "interval": 9.0} for name in FIGURES}
    cells = [[(10.0 * label + group) * 100 / 99 for group in range(10)] for label in range(10)]
    row = about | figures | {"epochs": 7, "seconds": 1.0, "tested_on": "test", "group_accuracy": cells}
    return row | {"group_images": counts.tolist()} | ({} if digest is None else {"set_digest": digest})


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    """A page of two runs with all that runs of sets have, of small parts."""
    data, records = fastdd.data.load("c-digits"), []
    figure = {name: {"mean": 40.0, "std": 1.0} for name in ("accuracy", "deo_m", "deo_a")}
    way = [{"iteration": at, "arch": "ConvNet", "nets": 2, "epochs": 7, "tested_on": "test", **figure} for at in (0, 9)]
    for debias in ("none", "fairdd"):
        made = random_set(data, 2)
        diagnostics = {"counts": [2] * 10, "ess": [1.5] * 10, "conflict_share": [0.1] * 10, "conflict_mass": [0.2] * 10}
        made = replace(made, metadata=made.metadata | {"kde": {"diagnostics": diagnostics}})
        file = tmp_path_factory.mktemp("run") / "synthetic.safetensors"
        made.save(file)
        config = {"method": "dm", "debias": debias, "dataset": "c-digits", "ipc": 2, "seed": 0, "lr_img": 1.0}
        rows = [result(data, "dm", debias, 2, made.digest())]
        losses = [(step, 2.0 + step) for step in range(9)]
        shots = [(0, file), (9, file)]
        records.append(Record(file.parent, made, config, 9, 9, losses, way, shots, rows, {"torch": "2"}))
    return page(records, data, view=View("none", images=2), baselines=[result(data, "random", "none", 2)])


class Tree(HTMLParser):
    """Elements with their attributes, the names of those around them, and their text."""

    def __init__(self, text):
        super().__init__()
        self.around, self.found = [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.found.append({"tag": tag, "in": list(self.around), "text": "", **dict(attributes)})
        if tag not in VOID:
            self.around.append(f"{tag}.{dict(attributes).get('class', '')}")

    def handle_startendtag(self, tag, attributes):
        self.found.append({"tag": tag, "in": list(self.around), "text": "", **dict(attributes)})

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.around.pop().startswith(f"{tag}."), f"{tag} ends where it did not begin"

    def handle_data(self, data):
        if self.found:
            self.found[-1]["text"] += data

    def all(self, tag, **has):
        return [one for one in self.found if one["tag"] == tag and all(one.get(key) == has[key] for key in has)]


@pytest.fixture(scope="module")
def tree(text):
    return Tree(text)


def test_it_has_one_title_headings_in_order_and_a_language(tree):
    headings = [int(one["tag"][1]) for one in tree.found if re.fullmatch("h[1-6]", one["tag"])]
    assert headings[0] == 1
    assert headings.count(1) == 1
    assert all(after - before <= 1 for before, after in pairwise(headings))
    assert tree.all("html")[0]["lang"] == "en"
    assert tree.all("title")[0]["text"].startswith("dm and dm+fairdd: c-digits, IPC 2")
    assert len(tree.all("main")) == 1
    assert tree.all("meta", name="viewport")[0]["content"] == "width=device-width, initial-scale=1"


def test_its_links_lead_somewhere_first_past_the_contents(tree):
    ids = Counter(one["id"] for one in tree.found if "id" in one)
    charts = {one["id"] for one in tree.found if "id" in one and any(part.startswith("svg.") for part in one["in"])}
    assert not {name for name, count in ids.items() if count > 1 and name not in charts}
    links = [one["href"].removeprefix("#") for one in tree.all("a")]
    assert links[0] == "main"
    assert {"results", "loss", "course", "images", "run-1", "run-2"} <= set(links)
    assert set(links) <= set(ids)


def test_everything_that_is_seen_has_a_name(tree):
    images = [one for one in tree.all("img") if one.get("class") != "large"]
    assert len(images) > 100
    assert all(one["alt"] for one in images)
    for one in tree.all("svg"):
        assert one.get("aria-hidden") == "true" or (one["role"] == "img" and one["aria-label"])
    regions = [one["aria-label"] for one in tree.found if one.get("role") == "region"]
    assert len(set(regions)) == len(regions)
    assert all(one["title"] for one in tree.all("button") if "data-class" in one)
    assert all(one["scope"] in ("col", "row") for one in tree.all("th"))


def test_text_of_the_heat_map_can_be_read_and_says_how_many_images_it_is_of(tree, text):
    cells = [one for one in tree.all("td") if one.get("style", "").startswith("background")]
    assert len(cells) == 200
    for one in cells:
        back, ink = re.findall(r"#[0-9a-f]{6}", one["style"])
        assert contrast(back, ink) >= 4.5
    assert len(re.findall(r"<small>of \d+</small></td>", text)) == 200
    assert text.count('class="few"') == 2
    assert "<strong>Warning:</strong> dm: WA rests on 5 images of class 0 in group red, fewer than 20" in text


def variables(block):
    return dict(re.findall(r"(--[a-z0-9]+): (#[0-9a-f]{6})", block))


def test_both_schemes_can_be_read(text):
    style = text[text.index("<style>") : text.index("</style>")]
    light = variables(style[style.index(":root") :].split("}")[0])
    dark = variables(style[style.index("(prefers-color-scheme: dark)") :].split("}")[0])
    assert light.keys() == dark.keys()
    for scheme in (light, dark):
        for text_of in ("--ink", "--pale", "--accent"):
            assert contrast(scheme[text_of], scheme["--back"]) >= 4.5
            assert contrast(scheme[text_of], scheme["--soft"]) >= 4.5
        assert contrast(scheme["--ink"], scheme["--note"]) >= 4.5
    used = set(re.findall(r"var\((--[a-z0-9]+)\)", text)) - {"--mark", "--sets", "--columns"}
    assert used <= light.keys()


def test_nothing_is_wider_than_the_page_but_in_a_part_that_scrolls_and_on_paper_nothing_is_cut(tree, text):
    assert all("div.wide" in one["in"] for one in tree.all("table"))
    for one in tree.all("div", **{"class": "wide"}):
        assert (one["tabindex"], one["role"]) == ("0", "region")
    style = text[text.index("<style>") : text.index("</style>")]
    assert "overflow: visible" in style[style.index("@media print") :]
    assert not re.search(r"<svg[^>]*>(?:(?!</svg>).)*legend", text, re.DOTALL)  # legends stand beside


def test_baselines_stand_above_the_runs(text):
    table = text[text.index('id="results"') :].split("</table>")[0]
    names = re.findall(r'<th scope="row">(.*?)</th>', table)
    assert names == ["random (baseline)", "dm", "dm+fairdd"]
    part = text[text.index('id="course"') :].split("<details>")[0]
    assert part.count("random</li>") == 3


SEEN = """(() => {
  const width = document.documentElement.clientWidth, wide = [];
  const cut = (each) => each && (getComputedStyle(each).overflowX != "visible" || cut(each.parentElement));
  for (const each of document.querySelectorAll("body *"))
    if (each.getBoundingClientRect().right > width + 1 && !cut(each)) wide.push(each.outerHTML.slice(0, 80));
  const parts = [...document.querySelectorAll(".row:nth-child(2) .tiles")].map((part) => part.getBoundingClientRect());
  return { wide, scrolls: document.documentElement.scrollWidth > width,
    back: getComputedStyle(document.body).backgroundColor,
    beside: parts[0].top == parts.at(-1).top,
    clipped: [...document.querySelectorAll(".wide")].filter((part) => part.scrollWidth > part.clientWidth + 1).length,
    over: [...document.querySelectorAll(".chart")].filter((chart) => {
      const [plot, key] = [...chart.children].map((part) => part.getBoundingClientRect());
      return key && key.left < plot.right - 1 && key.top < plot.bottom - 1;
    }).length };
})()"""


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
def test_it_fits_screens_and_paper_in_both_schemes(text, tmp_path):
    file = tmp_path / "report.html"
    file.write_text(text, encoding="utf-8")
    seen = {}
    with Browser(tmp_path / "profile") as browser:
        browser.show(file)
        for width, scheme, media in (
            (1400, "light", "screen"),
            (390, "dark", "screen"),
            (703, "dark", "print"),  # A4 less its margins
        ):
            browser.see(width=width, scheme=scheme, media=media)
            seen[width] = browser.ask(SEEN)
            axe = axe_core()
            if axe is not None:
                assert browser.axe(axe) == []
        assert browser.console == []
    for one in seen.values():
        assert (one["wide"], one["scrolls"], one["over"]) == ([], False, 0), json.dumps(one)
    assert [seen[width]["beside"] for width in (1400, 390, 703)] == [True, False, True]
    assert seen[703]["clipped"] == 0
    assert [seen[width]["back"] for width in (390, 703)] == ["rgb(20, 24, 29)", "rgb(255, 255, 255)"]
