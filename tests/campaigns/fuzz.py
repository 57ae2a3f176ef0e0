"""Damaged files by the thousand, through every reader of the product, in a process that may die of them.

    python tests/campaigns/fuzz.py [--cases N] [--seed S] [--readers GLOB ...] [--out FOLDER] [--json FILE]

A case is a function of the seed, the reader and the cases before it; what failed is kept below ``--out``. Inputs that
reach lines of fastdd that none did before are what later ones start from.
"""

import argparse
import contextlib
import faulthandler
import fnmatch
import json
import os
import random
import re
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import fuzz_mutations as mutations
import torch
from fuzz_readers import READERS, Different, Reader
from tally import OUTCOMES, Tally

import fastdd
from fastdd.cli import _report

SECONDS, MEMORY = 10, 2 << 30
# Status of a process whose campaign failed, not the product.
_BROKEN = 77
# Files that a pool of interesting ones holds, and the largest of them.
_POOL, _LARGEST = 40, 1 << 20
# Every so many cases are watched for new lines, which takes two to five times as long.
_TRACED = 4
_PACKAGE = str(Path(fastdd.__file__).parent)
# What a line says when a parser's own words are all that is left of the cause.
_UNCLEAR = re.compile(
    r"object is not|unexpected keyword|NoneType|unhashable|must be real number|list indices|has no attribute|not "
    r"supported between|recursion depth|surrogates not|codec can't|unpack \(|enforce fail|dispatcher|this is a bug"
)
_OUT_OF_MEMORY = re.compile(r"MemoryError|memory is not enough|Unable to allocate|can't allocate|out of memory")


@cache
def sound_files(make: Callable[[Path], None]) -> dict[Path, bytes]:
    """What ``make`` writes into a folder, by name."""
    with tempfile.TemporaryDirectory() as place, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        folder = Path(place, "case")
        folder.mkdir()
        make(folder)
        paths = sorted(path for path in folder.rglob("*") if path.is_file())
        return {path.relative_to(folder): path.read_bytes() for path in paths}


class Sample:
    """A reader's sound files, and a folder in which they are damaged."""

    def __init__(self, reader: Reader, place: Path):
        self.reader, self.folder, self.files = reader, place / "case", sound_files(reader.make)
        self.restore()
        chosen = {path for pattern in reader.changed for path in self.folder.glob(pattern) if path.is_file()}
        self.changed = sorted(path.relative_to(self.folder) for path in chosen)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self.right = reader.steady and reader.steady(reader.load(self.folder))
        self.restore()

    def restore(self) -> None:
        """The folder as it was made."""
        shutil.rmtree(self.folder, ignore_errors=True)
        for name, content in self.files.items():
            self.write(name, content)

    def write(self, name: Path, content: bytes) -> None:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def damage(chance: random.Random, sample: Sample, base: dict[Path, bytes]) -> tuple[dict[Path, bytes], bool]:
    """Contents in place of the sample's, on from ``base``; and whether files were moved about instead, or besides."""
    contents = dict(base)
    moved = chance.random() < 0.06
    if moved:
        _move(chance, sample)
        return {}, True
    for _ in range(chance.choice([1, 1, 1, 2])):
        name = chance.choice(sample.changed)
        content = contents.get(name, sample.files[name])
        if chance.random() < 0.6:
            contents[name] = mutations.of_structure(chance, str(name), content)
        else:
            other = sample.files[chance.choice(sample.changed)]
            contents[name] = mutations.of_bytes(chance, content, other)
    return contents, False


def _move(chance: random.Random, sample: Sample) -> None:
    name = chance.choice(sample.changed)
    path, how = sample.folder / name, chance.randrange(9)
    odd = mutations.odd_names(chance.choice([str(name), "odd.png", "x"]))
    if how == 0:
        path.unlink()
    elif how == 1:
        path.unlink()
        path.mkdir()
    elif how == 2 and not sample.reader.takes_pipes:
        path.unlink()
        os.mkfifo(path)
    elif how == 3:
        path.unlink()
        path.symlink_to(chance.choice([path.name, "/dev/zero", "/dev/null", "..", "/nowhere"]))
    elif how == 4:
        path.write_bytes(b"")
    elif how == 5:
        path.rename(sample.folder / chance.choice(mutations.odd_names(str(name))))
    elif how == 6 and len(name.parts) > 1:
        above = sample.folder / name.parts[0]
        above.rename(sample.folder / Path(chance.choice(odd)).name)
    elif how == 7:
        (path.parent / Path(chance.choice(odd)).name).write_bytes(sample.files[name])
    else:
        (path.parent / Path(chance.choice(odd)).name).mkdir()


class Lines:
    """Which lines of the package have run; ``new`` counts those that ran for the first time since it was asked."""

    def __init__(self) -> None:
        self._seen: set[tuple[Any, int]] = set()
        self._before = 0

    def __enter__(self) -> None:
        sys.settrace(self._call)

    def __exit__(self, *_: object) -> None:
        sys.settrace(None)

    def _call(self, frame: Any, event: str, argument: object) -> Any:
        return self._line if frame.f_code.co_filename.startswith(_PACKAGE) else None

    def _line(self, frame: Any, event: str, argument: object) -> Any:
        self._seen.add((frame.f_code, frame.f_lineno))
        return self._line

    def new(self) -> int:
        more, self._before = len(self._seen) - self._before, len(self._seen)
        return more


def attempt(sample: Sample) -> tuple[str, str]:
    """How the reader takes what is in the folder: an outcome of the tally's, and the line that was told."""
    reader, stage = sample.reader, "load"
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            value = reader.load(sample.folder)
            stage = "use"
            if reader.steady and reader.steady(value) != sample.right:
                raise Different("what was taken is not what was written")
            reader.use(value)
        outcome, line = "right", ""
    except Different as error:
        outcome, line = "silent difference", str(error)
    except Exception as error:
        line, _ = _report(error)
        outcome = judged(line, named=stage == "use" or str(sample.folder) in str(error))
        line = f"{line} [{type(error).__name__}]"
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    return ("memory", f"{grown >> 10} MiB, {line}") if grown > MEMORY >> 11 and outcome != "memory" else (outcome, line)


def judged(line: str, *, named: bool) -> str:
    """The outcome that an error's line stands for; ``named``: it names the file, so that its cause may be terse."""
    if "this is a bug" in line:
        return "traceback"
    if _OUT_OF_MEMORY.search(line):
        return "memory"
    clear = named and len(line) < 1200 and (str(line).count("/") or not _UNCLEAR.search(line))
    return "clear error" if clear else "unclear error"


def cases(sample: Sample, seed: str, numbers: range) -> Iterator[tuple[int, str, str]]:
    """Outcomes of a reader's cases, by number."""
    pool: list[dict[Path, bytes]] = [{}]
    lines = Lines()
    with lines:
        outcome, line = attempt(sample)
    if outcome != "right":
        raise AssertionError(f"the sound files are not taken: {line}")
    sample.restore()
    lines.new()
    for number in numbers:
        chance = random.Random(f"{seed}/{number}")
        base = chance.choice(pool) if chance.random() < 0.5 else {}
        try:
            contents, moved = damage(chance, sample, base)
        except (
            BaseException
        ):  # of the damage itself: Rust's panics, too, that safetensors has at tensors without values
            contents, moved = {}, True
        for name, content in contents.items():
            sample.write(name, content)
        yield number, "begins", ""
        with lines if number % _TRACED == 0 else contextlib.nullcontext():
            outcome, line = attempt(sample)
        if lines.new() and contents and sum(map(len, contents.values())) < _LARGEST:
            pool.append(contents)
            if len(pool) > _POOL:
                del pool[chance.randrange(1, len(pool))]
        yield number, outcome, line
        if moved or sample.reader.writes:
            sample.restore()
        else:
            for name in contents:
                sample.write(name, sample.files[name])


def block(
    name: str, seed: str, numbers: range, place: Path, keep: Path | None, seconds: float
) -> Iterator[tuple[int, str, str]]:
    """The cases of :func:`cases` in a process of their own, which is started again after one that ends it."""
    start = numbers.start
    sound_files(READERS[name].make)  # here, so that a process that is started again finds them
    while start < numbers.stop:
        reader, writer = os.pipe()
        child = os.fork()
        if not child:
            os.close(reader)
            _work(name, seed, range(start, numbers.stop), place, keep, seconds, writer)
        os.close(writer)
        last, ended = start, False
        with open(reader, encoding="utf-8") as messages:
            for message in messages:
                number, outcome, line = json.loads(message)
                last, ended = number, outcome != "begins"
                if ended:
                    yield number, outcome, line
        _, status = os.waitpid(child, 0)
        if status == _BROKEN << 8:
            raise RuntimeError(f"{name}, case {last}: the campaign itself failed, as is told above")
        if status:
            told = os.WTERMSIG(status) if os.WIFSIGNALED(status) else -os.WEXITSTATUS(status)
            yield last, "hang" if told in (signal.SIGALRM, signal.SIGPROF) else "crash", f"ended by {told}"
            if keep and (place / "case").exists():
                _keep(place / "case", keep / f"{name.replace(' ', '-')}-{last}")
        start = last + 1
        shutil.rmtree(place, ignore_errors=True)


def _work(name: str, seed: str, numbers: range, place: Path, keep: Path | None, seconds: float, writer: int) -> None:
    """The child's part; does not return."""
    code, told = _BROKEN, os.dup(2)
    faulthandler.disable()  # a crash is counted, and its case kept
    try:
        torch.set_num_threads(1)
        place.mkdir(parents=True, exist_ok=True)
        sample = Sample(READERS[name], place)
        quiet = os.open(os.devnull, os.O_WRONLY)
        for stream in (1, 2):
            os.dup2(quiet, stream)
        size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (size + MEMORY, size + MEMORY))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        for number in (signal.SIGALRM, signal.SIGPROF):  # where it hangs is told
            signal.signal(number, signal.SIG_DFL)
            faulthandler.register(number, file=told, chain=True)
        with open(writer, "w", encoding="utf-8") as messages:
            for number, outcome, line in cases(sample, f"{seed}/{name}", numbers):
                # Of the processor's time. By the clock only what shows a wait without end: a busy machine is slow.
                signal.setitimer(signal.ITIMER_PROF, seconds if outcome == "begins" else 0)
                signal.setitimer(signal.ITIMER_REAL, 20 * seconds if outcome == "begins" else 0)
                print(json.dumps([number, outcome, line]), file=messages, flush=True)
                if keep and OUTCOMES.get(outcome):
                    _keep(sample.folder, keep / f"{name.replace(' ', '-')}-{number}")
        code = 0
    finally:
        if code:
            os.write(told, traceback.format_exc().encode(errors="replace"))
        os._exit(code)


def _keep(folder: Path, where: Path) -> None:
    with contextlib.suppress(OSError, shutil.Error):
        shutil.copytree(folder, where, symlinks=True, ignore=lambda _, names: [n for n in names if "\n" in n])


def run(
    tally: Tally,
    chosen: list[str],
    count: int,
    seed: int,
    *,
    keep: Path | None = None,
    seconds: float = SECONDS,
    first: int = 0,
    told: Callable[[str, int, str, str], None] = lambda *_: None,
) -> None:
    """``count`` cases of each reader from ``first`` on, counted."""
    for name in chosen:
        with tempfile.TemporaryDirectory(dir="/dev/shm" if os.path.isdir("/dev/shm") else None) as place:
            for number, outcome, line in block(
                name, str(seed), range(first, first + -(-count // READERS[name].slow)), Path(place, "f"), keep, seconds
            ):
                again = f"case {number} of seed {seed}: {line}".encode(errors="backslashreplace").decode()
                tally.count(f"fuzz: {name}", outcome, again)
                told(name, number, outcome, again)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", type=int, default=2000, help="of every reader")
    parser.add_argument("--first", type=int, default=0, help="number of the first")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--readers", nargs="*", default=["*"])
    parser.add_argument("--out", type=Path, help="folder for cases that fail")
    parser.add_argument("--json", type=Path, help="file for the counts")
    given, tally = parser.parse_args(), Tally()
    chosen = [name for name in READERS if any(fnmatch.fnmatch(name, pattern) for pattern in given.readers)]

    def told(name: str, number: int, outcome: str, line: str) -> None:
        if OUTCOMES[outcome]:
            print(f"{name}: {outcome}: {line[:400]}", flush=True)

    for name in chosen:
        began = time.perf_counter()
        run(tally, [name], given.cases, given.seed, keep=given.out, first=given.first, told=told)
        print(f"# {name}: {dict(tally.counts[f'fuzz: {name}'])}, {time.perf_counter() - began:.1f} s", flush=True)
        if given.json:
            tally.write(given.json)
    print(tally.table())


if __name__ == "__main__":
    main()
