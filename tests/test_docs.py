"""What the documentation shows exists and runs."""

import re
import shlex
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]


def code_blocks(page: Path) -> list[str]:
    return re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)


@pytest.mark.usefixtures("parts_apart")
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_python_examples_run(page, monkeypatch):
    monkeypatch.setattr("fastdd.session.estimate._SECONDS", 0.05)
    for block in code_blocks(page):
        exec(compile(block, str(page), "exec"), {})


def options_of(command) -> set[str]:
    return {option for parameter in command.params for option in parameter.opts}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_and_options_exist(page):
    from fastdd.cli.commands import COMMANDS, load

    for line in re.findall(r"^    (fastdd .*)$", page.read_text(encoding="utf-8"), re.MULTILINE):
        words = shlex.split(re.sub(r"[\[\]]", " ", line), comments=True)[1:]
        if words[0] == "estimate":  # it takes another command's words
            words.pop(0)
        assert words[0] in COMMANDS, line
        command = load(words.pop(0))
        while words and words[0] in getattr(command, "commands", {}):
            command = command.commands[words.pop(0)]
        if command.name == "run":  # what follows the script, or the module's name, is the script's
            words = words[: 1 + next(k for k, word in enumerate(words) if word.endswith(".py") or word == "-m")]
        used = {word for word in words if word.startswith("--")}
        assert used <= options_of(command), line


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_resolve(page):
    for target in re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), target


def test_what_holds_a_promise_exists():
    text = (ROOT / "docs" / "promises.md").read_text(encoding="utf-8")
    named = re.findall(r"`(tests/[^`]+)`", text)
    assert len(named) > 50
    for file, _, test in (one.partition("::") for one in named):
        assert (ROOT / file).exists(), file
        assert not test or f"def {test}(" in (ROOT / file).read_text(encoding="utf-8"), f"{file} has no {test}"


def test_every_promise_is_held_by_something():
    text = (ROOT / "docs" / "promises.md").read_text(encoding="utf-8")
    rows = [line.split(" | ") for line in text.splitlines() if line.startswith("| ") and "held by" not in line]
    assert len(rows) > 30
    for promise, *held in rows:
        assert len(held) == 1, promise
        assert "`tests/" in held[0], promise


def test_readme_is_read_in_a_minute():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 90


def test_every_page_is_in_the_manual():
    nav = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    for page in (ROOT / "docs").rglob("*.md"):
        assert f" {page.relative_to(ROOT / 'docs')}\n" in nav, page
