"""Decoding a plan's images into a packed store, a few at a time; a build that was killed goes on."""

import contextlib
import hashlib
import io
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np

from fastdd.core import reading
from fastdd.core.files import LOCK, WriteError, hold, remove_partials
from fastdd.core.space import TooSmallError, check_room
from fastdd.core.text import shown
from fastdd.data.dataset import Dataset
from fastdd.data.files.plan import Plan, Tally
from fastdd.data.files.store import (
    FINISHED,
    check_place,
    install,
    is_store,
    linked_to,
    open_finished,
    open_store,
    write_arrays,
    write_meta,
    written_digest,
)

_JOURNAL, _SOURCES = "journal.jsonl", "sources.bin"
# Pixels between two checkpoints of a build.
_CHECKPOINT_BYTES = 32 << 20


def build_store(
    plan: Plan,
    path: str | os.PathLike,
    *,
    overwrite: bool = False,
    resume: bool = False,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Dataset:
    """Decode a plan's images into a packed store, a few at a time, and open it.

    What is done is kept beside the store (``.NAME.building``), also when the build is killed or the disk is full, until
    the store is whole. The bytes are those of :func:`save_store` of ``plan.dataset()``, whatever the workers, and
    however often the build was resumed.

    Args:
        plan: what to decode.
        path: the store's folder; its parent must exist.
        overwrite: replace a store that is there. Anything else there is never replaced.
        resume: continue what an earlier build left; start if there is nothing, and open the store if it is done.
        workers: as of :meth:`fastdd.data.files.plan.Plan.decoded`.
        progress: ``progress(done, total)``, in images.

    Raises:
        FileExistsError, FileNotFoundError: as :func:`check_place`.
        ValueError: an earlier build left something, and it is not to be continued, or was of something else.
        RuntimeError: an image that can't be decoded, naming it, unless they are skipped.
        OSError: the disk is too small, told before the start, or full; or another process builds this store.

    Cost: memory of two batches a worker (8 MiB each), whatever the data.
    """
    path = linked_to(path)
    building = path.parent / f".{path.name}.building"
    if resume and is_store(path) and (not overwrite or _installed(building, path)):
        done = open_finished(path, plan)
        if building.exists():  # killed after the store was whole
            with hold(building) or contextlib.nullcontext():
                _discard(building)
        return done
    check_place(path, overwrite)
    if building.exists() and not resume and not overwrite:
        raise ValueError(f"{building} holds an unfinished build: continue it with --resume, or start anew with --force")
    building.mkdir(exist_ok=True)
    with hold(building) or contextlib.nullcontext():
        build = _Build(plan, building, resume)
        try:
            check_room(path.parent, build.missing, "the store")
            build.run(workers, progress)
            install(building, path, overwrite)
            _discard(building)
        except TooSmallError:
            raise
        except FileExistsError as error:
            raise FileExistsError(f"{error}, or move it away and continue with --resume; {build.kept}") from None
        except OSError as error:
            raise WriteError(
                error.errno,
                f"cannot write {building}: {os.strerror(error.errno or 0)}; {build.kept}: make room and continue with "
                "--resume",
            ) from error
        except KeyboardInterrupt:
            raise KeyboardInterrupt(f"{build.kept}; continue with --resume") from None
        finally:
            if not any(build.rows.values()):
                _discard(building)
    return open_store(path)


def _empty(building: Path) -> None:
    """Remove all but the lock, first the journal: what a kill leaves of it promises nothing."""
    (building / _JOURNAL).unlink(missing_ok=True)
    for path in building.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        elif path.name != LOCK:
            path.unlink()


def _discard(building: Path) -> None:
    with contextlib.suppress(OSError):
        _empty(building)
    shutil.rmtree(building, ignore_errors=True)


def _lines(journal: Path) -> list[dict]:
    """The whole lines of a journal, if there is one; ValueError, naming it, where one is none."""
    content = reading.content(journal) if journal.exists() else b""
    with reading.damage_of(journal, "is damaged: start anew with --force", ValueError):
        lines = [reading.parse_json(line) for line in content[: content.rfind(b"\n") + 1].splitlines()]
        odd = next((line for line in lines if not isinstance(line, dict)), None)
        if odd is not None:
            raise ValueError(f"it has a line {shown(odd)}")
    return lines


def _installed(building: Path, path: Path) -> bool:
    """Whether the build in ``building`` has put its store at ``path``; what it still holds is then the old one."""
    lines = _lines(building / _JOURNAL)
    return bool(lines) and lines[-1].get("digest", "") == written_digest(path)


class _Build:
    """A store on its way: pixels in the end's ``.npy`` files, and a journal of what is safely on the disk.

    A line of the journal is written after the pixels (and the images' SHA-256) that it speaks of; whatever is beyond
    the last whole line is cut off when the build goes on.
    """

    def __init__(self, plan: Plan, building: Path, resume: bool):
        self.plan, self.building, self.tally = plan, building, Tally(plan)
        self.store = building / FINISHED
        for path in (building / _JOURNAL, building / _SOURCES, *self.store.glob("*")):
            if path.exists() and not path.is_file():
                raise ValueError(f"{path} is damaged: it is not a regular file; start anew with --force")
        first = {"plan": plan.fingerprint(), "name": plan.name}
        lines = self._journal() if resume else []
        if lines and lines[-1].get("digest") not in (None, written_digest(self.store)):
            lines = []  # its store was installed, and is there no more: what is here is the one that it replaced
        if lines and lines[0] != first:
            raise ValueError(
                f"{building} holds an unfinished build of {lines[0].get('name')} with other options or files: "
                "start anew with --force, or choose another path"
            )
        with reading.damage_of(building / _JOURNAL, "is damaged: start anew with --force", ValueError):
            for line in lines[1:]:
                self._check_line(line)
        if not plan.skip_corrupt and any(failed for line in lines[1:] for failed in line["failed"].values()):
            raise ValueError(f"{building} holds a build that left out corrupt images: add --skip-corrupt")
        if not lines:
            _empty(building)
            self.store.mkdir()
            self._note(first)
        remove_partials(self.store)
        self.rows = dict.fromkeys(plan.splits, 0)
        self.sha = hashlib.sha256()
        if len(lines) > 1:
            last = lines[-1]
            self.rows = last["rows"]
            self.tally.stops = last["stops"]
            self.tally.levels = np.array(last["levels"], np.int64)
            for line in lines[1:]:
                for split, failed in line["failed"].items():
                    self.tally.failed[split] += [(row, why) for row, why in failed]
            with (building / _SOURCES).open("rb") as file:
                for split in plan.splits:
                    self.tally.sha256[split] += file.read(32 * self.rows[split])

    def _journal(self) -> list[dict]:
        """What earlier builds noted; a last line that was cut short is cut off."""
        file = self.building / _JOURNAL
        lines = _lines(file)
        if file.exists():
            os.truncate(file, reading.content(file).rfind(b"\n") + 1)
        return lines

    def _check_line(self, line: dict) -> None:
        """ValueError where a line of the journal is none that :meth:`_stream` notes."""
        for name in ("rows", "stops"):
            counts = [line[name][split] for split in self.plan.splits]
            most = [len(rows) for rows in self.plan.splits.values()]
            if not all(reading.is_count(count) and count <= top for count, top in zip(counts, most, strict=True)):
                raise ValueError(f"{name} are {shown(line[name])}")
        levels, pixels = line["levels"], line["rows"]["train"] * self.plan.recipe.size**2
        whole = all(len(row) == 256 and all(map(reading.is_count, row)) and sum(row) == pixels for row in levels)
        if len(levels) != 3 or not whole:
            raise ValueError(f"levels are {shown(levels)}")
        failed = [entry for split in line["failed"] for entry in line["failed"][split]]
        if not line["failed"].keys() <= self.plan.splits.keys() or not all(
            len(entry) == 2 and reading.is_count(entry[0]) and isinstance(entry[1], str) for entry in failed
        ):
            raise ValueError(f"failed are {shown(line['failed'])}")

    def _note(self, entry: dict) -> None:
        with (self.building / _JOURNAL).open("ab", buffering=0) as file:
            _write(file, (json.dumps(entry) + "\n").encode())
            os.fsync(file.fileno())

    @property
    def missing(self) -> int:
        """Bytes still to be written, about."""
        pixels = 3 * self.plan.recipe.size**2
        return (len(self.plan) - sum(self.rows.values())) * (pixels + 32) + 16 * len(self.plan)

    @property
    def kept(self) -> str:
        return f"{sum(self.rows.values()):,} of {len(self.plan):,} images are kept in {self.building}"

    def run(self, workers: int | None, progress: Callable[[int, int], None] | None) -> None:
        """Decode and write what is missing: ``building/store`` is whole then."""
        images = {}
        for split in self.plan.splits:
            self._stream(split, workers, progress)
            file = self.store / f"{split}-images.npy"
            images[split] = np.load(file, mmap_mode="r")
            for array in (getattr(self.plan, split).labels, getattr(self.plan, split).groups):
                self.sha.update(np.ascontiguousarray(array, dtype="<i8"))
        dataset = self.tally.dataset(images)
        for split in self.plan.splits:
            write_arrays(self.store, split, getattr(dataset, split), ("labels", "groups"))
        # With images left out, what was hashed as it was written had the wrong numbers of rows.
        skipped = any(self.tally.failed.values())
        digest = dataset.digest() if skipped else self.sha.hexdigest()
        write_meta(self.store, dataset, digest)
        self._note({**self._state(self.rows, failed={}), "digest": digest})

    def _state(self, rows: dict[str, int], failed: dict[str, list]) -> dict:
        """An entry of the journal; ``failed``: images left out since the one before."""
        return {"rows": rows, "stops": self.tally.stops, "levels": self.tally.levels.tolist(), "failed": failed}

    def _check_length(self, file: io.FileIO, noted: int) -> None:
        """What the journal notes is on the disk, unless someone took it away: zeros would be in its place."""
        if os.fstat(file.fileno()).st_size < noted:
            raise RuntimeError(f"{file.name} is shorter than {self.building / _JOURNAL} says: start anew with --force")

    def _stream(self, split: str, workers: int | None, progress) -> None:
        tally, rows = self.tally, self.rows
        size = 3 * self.plan.recipe.size**2
        checkpoint = max(1, _CHECKPOINT_BYTES // size)
        file_name = self.store / f"{split}-images.npy"
        file_name.touch()
        (self.building / _SOURCES).touch()
        with (
            file_name.open("r+b", buffering=0) as pixels,
            (self.building / _SOURCES).open("r+b", buffering=0) as sources,
        ):
            # The rows are known when all is decoded; a header has the same length whatever they are.
            start = len(_header(len(getattr(self.plan, split)), self.plan.recipe.size))
            self._check_length(pixels, rows[split] and start + rows[split] * size)
            self._check_length(sources, 32 * sum(rows.values()))
            pixels.truncate(start + rows[split] * size)
            self.sha.update(repr(self.plan.shape(split)).encode())
            pixels.seek(start)
            while content := pixels.read(1 << 20):
                self.sha.update(content)
            pixels.seek(0, os.SEEK_END)
            sources.truncate(32 * sum(rows.values()))
            sources.seek(0, os.SEEK_END)
            written, noted = 0, len(tally.failed[split])

            def note() -> None:
                nonlocal written, noted
                os.fsync(pixels.fileno())
                os.fsync(sources.fileno())
                now = rows | {split: rows[split] + written}
                self._note(self._state(now, {split: tally.failed[split][noted:]}))
                rows.update(now)
                written, noted = 0, len(tally.failed[split])

            if progress:
                progress(tally.done, len(self.plan))
            first = tally.stops[split]
            for part in self.plan.decoded(split, first, workers):
                _write(pixels, part.done.images)
                self.sha.update(part.done.images)
                _write(sources, part.done.sha256)
                tally.add(split, part)
                written += len(part.done.images)
                if written >= checkpoint:
                    note()
                if progress:
                    progress(tally.done, len(self.plan))
            if tally.stops[split] > first:
                note()
            pixels.seek(0)
            _write(pixels, _header(rows[split], self.plan.recipe.size))
            os.fsync(pixels.fileno())


def _header(rows: int, size: int) -> bytes:
    """What :func:`numpy.save` writes before the pixels."""
    file = io.BytesIO()
    shape = {"descr": "|u1", "fortran_order": False, "shape": (rows, 3, size, size)}
    np.lib.format.write_array_header_1_0(file, shape)
    return file.getvalue()


def _write(file: io.RawIOBase, data) -> None:
    """All of it: a full disk takes a part, and then says so."""
    left = memoryview(data).cast("B") if len(data) else b""
    while len(left):
        left = left[file.write(left) :]
