"""From image files to pixels, here or in worker processes.

A worker is a new interpreter that runs this file alone (no torch: it starts in a quarter of a second and takes 40 MB),
answers batches read from its standard input, and ends with it. Threads will not do: of a 64x64 JPEG most of the time
goes to Pillow's Python code, which holds the lock (2 cores: 5,100 a second in two threads, 9,100 in two workers).
"""

import contextlib
import functools
import hashlib
import io
import json
import os
import pickle
import stat
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

# Of a file or member, which is read whole: more than the largest image that Pillow decodes takes without compression.
_MOST_BYTES = 1 << 30


@dataclass(frozen=True)
class Recipe:
    """What becomes of an image after it is decoded as RGB.

    Args:
        size: height and width that it gets, in pixels.
        crop: first cut this square (height and width) out of the middle; an image that is smaller is refused.
        stretch: resize both sides to ``size``, whatever the shape; otherwise the shorter one, and cut out the middle.
    """

    size: int
    crop: int | None = None
    stretch: bool = False


@dataclass(frozen=True)
class Batch:
    """Images to decode in one go.

    Args:
        items: (path, member, offset, length) of each: a file; a member of a zip archive; or bytes inside a tar archive.
        gray: which to turn gray, ITU-R 601-2 luma of the resized pixels in all three channels.
        recipe: how.
    """

    items: list[tuple[str, str | None, int, int]]
    gray: np.ndarray
    recipe: Recipe


@dataclass(frozen=True)
class Decoded:
    """Pixels of a batch.

    Attributes:
        images: uint8 [n, 3, size, size]; rows of images in ``failed`` are left out.
        levels: int64 [3, 256]: how often each level is in a channel.
        sha256: 32 bytes an image, of the file's content.
        failed: (position in the batch, why) of those that can't be decoded.
    """

    images: np.ndarray
    levels: np.ndarray
    sha256: bytes
    failed: list[tuple[int, str]]


def decode(content: bytes, recipe: Recipe, gray: bool = False) -> np.ndarray:
    """uint8 [3, size, size] of an image file's content; bilinear, antialiased (Pillow).

    Raises:
        ValueError: in one line, why it can't be decoded.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(io.BytesIO(content)) as image:
            rgb = image.convert("RGB")
    except Exception as error:  # a damaged image can raise nearly anything
        # Pillow's own line may name the buffer and its address.
        raise ValueError("not an image" if isinstance(error, UnidentifiedImageError) else str(error)) from None
    size = recipe.size
    if recipe.crop is not None:
        if min(rgb.size) < recipe.crop:
            raise ValueError(f"it is {rgb.width}x{rgb.height}, smaller than the {recipe.crop}x{recipe.crop} to cut out")
        rgb = _middle(rgb, recipe.crop)
    if rgb.size != (size, size):
        scale = size / min(rgb.size)
        shape = (size, size) if recipe.stretch else tuple(max(size, round(side * scale)) for side in rgb.size)
        rgb = _middle(rgb.resize(shape, Image.Resampling.BILINEAR), size)
    return (
        np.broadcast_to(np.asarray(rgb.convert("L")), (3, size, size)) if gray else np.asarray(rgb).transpose(2, 0, 1)
    )


def _middle(image, side: int):
    left, top = (image.width - side) // 2, (image.height - side) // 2
    return image.crop((left, top, left + side, top + side))


@functools.lru_cache(maxsize=1)
def _archive(path: str, changed: int):
    """An open zip archive; ``changed``, when it was, so that another one of the name is opened anew."""
    import zipfile

    return zipfile.ZipFile(path)


def _check_size(size: int) -> None:
    if size > _MOST_BYTES:
        raise ValueError(f"it is of {size:,} bytes, and no image has more than {_MOST_BYTES:,}")


def read_item(path: str, member: str | None, offset: int, length: int) -> bytes:
    """The bytes of an item of a :class:`Batch`.

    Raises:
        OSError: it can't be read.
        ValueError: in one line: what is no regular file, or larger than any image.
    """
    about = os.stat(path)
    if not stat.S_ISREG(about.st_mode):
        raise ValueError("it is a pipe or a device, not a file")
    if member is not None:
        archive = _archive(path, about.st_mtime_ns)
        _check_size(archive.getinfo(member).file_size)
        return archive.read(member)
    _check_size(about.st_size if length < 0 else length)
    with open(path, "rb") as file:
        if length < 0:
            return file.read()
        file.seek(offset)
        return file.read(length)


def decode_batch(batch: Batch) -> Decoded:
    """Read and decode a batch; what can't be read or decoded is told, not raised."""
    size = batch.recipe.size
    images = np.empty((len(batch.items), 3, size, size), np.uint8)
    digests, failed = [], []
    for position, (item, gray) in enumerate(zip(batch.items, batch.gray.tolist(), strict=True)):
        try:
            content = read_item(*item)
            images[position - len(failed)] = decode(content, batch.recipe, gray)
        except OSError as error:
            failed.append((position, error.strerror or str(error)))
        except Exception as error:  # zipfile, too, raises nearly anything
            failed.append((position, str(error) or type(error).__name__))
        else:
            digests.append(hashlib.sha256(content).digest())
    images = images[: len(digests)]
    levels = np.stack([np.bincount(images[:, channel].ravel(), minlength=256) for channel in range(3)])
    return Decoded(images, levels, b"".join(digests), failed)


def decode_all(batches: Iterable[Batch], workers: int) -> Iterator[Decoded]:
    """Decode batches, in order, in ``workers`` processes; in this one if ``workers`` is 1.

    At most two batches a worker are under way or waiting to be taken, so memory does not grow with the data.

    Raises:
        RuntimeError: a worker was killed.
    """
    if workers == 1:
        yield from map(decode_batch, batches)
        return
    pool = _Workers()
    with ThreadPoolExecutor(workers) as threads:
        waiting = deque()
        try:
            for batch in batches:
                waiting.append(threads.submit(pool.ask, batch))
                if len(waiting) == 2 * workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
            pool.close()


_START = """
import json, runpy, sys
sys.path[:] = json.loads(sys.argv[2])
runpy.run_path(sys.argv[1], {}, "__main__")
"""


class _Workers:
    """One worker process a thread that asks."""

    def __init__(self):
        self._own = threading.local()
        self._all: list[subprocess.Popen] = []

    def ask(self, batch: Batch) -> Decoded:
        worker = getattr(self._own, "worker", None)
        if worker is None:
            # The parent's search path: Pillow may lie where only the parent was told to look.
            command = [sys.executable, "-W", "ignore", "-c", _START, __file__, json.dumps(sys.path)]
            try:
                worker = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
            except OSError as error:
                raise RuntimeError(
                    f"cannot start a process that decodes images: {error.strerror}; try --workers 1"
                ) from None
            self._own.worker = worker
            self._all.append(worker)
        try:
            items, gray, recipe = batch.items, batch.gray, batch.recipe
            pickle.dump((items, gray, recipe.size, recipe.crop, recipe.stretch), worker.stdin)
            worker.stdin.flush()
            return Decoded(*pickle.load(worker.stdout))
        except (OSError, EOFError, pickle.UnpicklingError):
            raise RuntimeError(
                f"a process that decodes images ended (exit code {worker.wait()}); is there enough memory?"
            ) from None

    def close(self) -> None:
        for worker in self._all:
            worker.stdout.close()
            worker.stdin.close()
            worker.wait()


def cores() -> int:
    """Processors that this process may use; the ranks of a job share those of their machine."""
    # Not at the top: a worker runs this file without the package, which would import torch.
    from fastdd.core import ranks

    all_ = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, all_ // ranks.local_world())


def _main() -> None:
    import signal

    # Ctrl-C reaches the whole terminal; the parent decides.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    source, sink = sys.stdin.buffer, sys.stdout.buffer
    # The end of the input, or of who reads the output, is that of the parent.
    with contextlib.suppress(EOFError, BrokenPipeError):
        while True:
            items, gray, size, crop, stretch = pickle.load(source)
            done = decode_batch(Batch(items, gray, Recipe(size, crop, stretch)))
            reply = (done.images, done.levels, done.sha256, done.failed)
            pickle.dump(reply, sink, protocol=pickle.HIGHEST_PROTOCOL)
            sink.flush()
    os._exit(0)


if __name__ == "__main__":
    _main()
