"""What a type checker, and so an editor, says of users' scripts."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from shared import once

pytest.importorskip("mypy")
pytestmark = pytest.mark.full  # the checker reads torch too: a quarter of a minute, where its cache is cold
HERE = Path(__file__).parent
ROOT = HERE.parent.parent


@pytest.fixture(scope="module")
def told(request, tmp_path_factory) -> dict[tuple[str, int], str]:
    """Errors of both scripts, by file and line."""
    # fastdd's own files are followed, and what is wrong in them is not reported. Seconds where the cache is warm.
    words = ["--strict", "--follow-imports=silent", "--python-version=3.10", "--no-error-summary"]
    cache = request.config.cache.mkdir("mypy") if hasattr(request.config, "cache") else "/dev/null"
    scripts = [str(HERE / name) for name in ("user_script.py", "wrong_script.py")]
    scripts += map(str, sorted((ROOT / "examples").glob("*.py")))
    command = [sys.executable, "-m", "mypy", *words, f"--cache-dir={cache}", *scripts]

    def make(folder):
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600)
        assert done.returncode == 1, done.stderr
        (folder / "told").write_text(done.stdout)

    said = (once(tmp_path_factory, "types", make) / "told").read_text()
    lines = re.findall(r"^(.*?):(\d+): error: (.*)$", said, re.MULTILINE)
    return {(Path(file).name, int(number)): message for file, number, message in lines}


def test_a_users_script_is_strictly_typed(told):
    assert {line: message for (file, line), message in told.items() if file == "user_script.py"} == {}


def test_the_examples_of_plugins_are_strictly_typed(told):
    assert [file for file, _ in told if file not in ("user_script.py", "wrong_script.py")] == []


def test_every_mistake_is_told_where_it_is(told):
    lines = (HERE / "wrong_script.py").read_text().splitlines()
    wrong = [number for number, line in enumerate(lines, 1) if line.endswith("# wrong")]
    assert sorted(line for file, line in told if file == "wrong_script.py") == wrong
    assert 'did you mean "iterations"?' in told["wrong_script.py", wrong[0]]
