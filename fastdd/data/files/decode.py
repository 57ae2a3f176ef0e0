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
from dataclasses import astuple, dataclass

import numpy as np

# Pillow's plugins that may read a file, whatever its suffix says: left to choose, Pillow runs PostScript (Ghostscript).
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF", "PPM")
_ORIENTATION = 0x0112  # EXIF
_BITS_PER_SAMPLE, _PHOTOMETRIC, _WHITE_IS_ZERO = 258, 262, 0  # TIFF
# Of a file or member, which is read whole: more than the largest image that Pillow decodes takes without compression.
_MOST_BYTES = 1 << 30


@dataclass(frozen=True)
class Recipe:
    """What becomes of an image after it is decoded as RGB.

    Args:
        size: height and width that it gets, in pixels.
        crop: first cut this square (height and width) out of the middle; an image that is smaller is refused.
        stretch: resize both sides to ``size``, whatever the shape; otherwise the shorter one, and cut out the middle.
        as_stored: pixels as Pillow turns the file's into RGB, not as a viewer shows them (:func:`shown`): so published
            sets were made.
    """

    size: int
    crop: int | None = None
    stretch: bool = False
    as_stored: bool = False


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
    """uint8 [3, size, size] of an image file's content, its first frame; bilinear, antialiased (Pillow).

    Raises:
        ValueError: in one line, why it can't be decoded.
    """
    with opened(content) as image:
        rgb = (image if recipe.as_stored else shown(image)).convert("RGB")
    rgb, size = fitted(rgb, recipe), recipe.size
    return (
        np.broadcast_to(np.asarray(rgb.convert("L")), (3, size, size)) if gray else np.asarray(rgb).transpose(2, 0, 1)
    )


def fitted(rgb, recipe: Recipe):
    """A Pillow image in RGB, cut and resized as the recipe says; ValueError where it is too small.

    Sizes and places are those of torchvision's Resize and CenterCrop, which published code has: of a longer side whole
    pixels count, and half a pixel from the edge goes to the even one.
    """
    from PIL import Image

    size = recipe.size
    if recipe.crop is not None:
        if min(rgb.size) < recipe.crop:
            raise ValueError(f"it is {rgb.width}x{rgb.height}, smaller than the {recipe.crop}x{recipe.crop} to cut out")
        rgb = _middle(rgb, recipe.crop)
    if rgb.size != (size, size):
        shape = (size, size) if recipe.stretch else tuple(size * side // min(rgb.size) for side in rgb.size)
        rgb = _middle(rgb.resize(shape, Image.Resampling.BILINEAR), size)
    return rgb


@contextlib.contextmanager
def opened(content: bytes):
    """The Pillow image of a file's content, one of :data:`FORMATS`; within the block, what Pillow raises is ValueError.

    Raises:
        ValueError: in one line, why it can't be decoded.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as image:
            yield image
    except UnidentifiedImageError:  # its line names the buffer and its address
        raise ValueError(f"not an image ({', '.join(FORMATS)})") from None
    except Exception as error:  # a damaged image can raise nearly anything
        raise ValueError(str(error).rstrip(".") or type(error).__name__) from None


def shown(image):
    """A Pillow image as a viewer shows it, mode L (gray of 8 bits or more) or RGB. Colour profiles are not applied.

    It is turned as its EXIF orientation says; what is transparent lies on white; gray of 16 bits keeps its upper eight
    (TIFF of 12: likewise), and gray in floating point is from 0 to 1.

    Raises:
        ValueError: gray of 32 bits, or in floating point outside 0..1, which has no known white.
    """
    from PIL import Image

    image.load()
    if image.mode == "L" and "transparency" not in image.info:
        plain = image
    elif image.mode == "F" or image.mode.startswith("I"):
        plain = _scaled(image)
    elif "transparency" in image.info or image.getbands()[-1] in ("A", "a"):
        # La can become LA only.
        rgba = (image.convert("LA") if image.mode == "La" else image).convert("RGBA")
        plain = Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
    else:
        plain = image.convert("RGB")
    # After loading: Pillow turns TIFF by itself then, and forgets the orientation.
    turn = _turns().get(_orientation(image))
    return plain if turn is None else plain.transpose(turn)


def _orientation(image) -> int:
    try:
        return image.getexif().get(_ORIENTATION, 1)
    except Exception:  # viewers, too, show an image whose EXIF is damaged
        return 1


@functools.cache
def _turns() -> dict:
    from PIL.Image import Transpose

    order = "FLIP_LEFT_RIGHT ROTATE_180 FLIP_TOP_BOTTOM TRANSPOSE ROTATE_270 TRANSVERSE ROTATE_90"
    return {number: Transpose[name] for number, name in enumerate(order.split(), 2)}


def _scaled(image):
    """Mode L of gray in more than 8 bits."""
    from PIL import Image

    values, tags = np.asarray(image), getattr(image, "tag_v2", {})
    if image.mode == "F":
        if not (values >= 0).all() or not (values <= 1).all():
            raise ValueError(
                f"gray in floating point from {values.min():g} to {values.max():g}, not 0 to 1: "
                "save it with 8 or 16 bits"
            )
        gray = np.rint(values * 255)
    elif image.mode == "I" and image.format not in ("PNG", "PPM"):  # Pillow gives those, of 16 bits, as I or as I;16
        raise ValueError("gray in 32 bits, or with a sign, whose white is not known: save it with 8 or 16 bits")
    else:
        gray = values.astype(np.int64) >> tags.get(_BITS_PER_SAMPLE, (16,))[0] - 8
        # PNG's one value that is transparent: white, as all that is.
        gray[values == image.info.get("transparency", -1)] = 255
    if tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO:
        gray = 255 - gray
    return Image.fromarray(gray.astype(np.uint8))


def _middle(image, side: int):
    left, top = round((image.width - side) / 2), round((image.height - side) / 2)
    return image.crop((left, top, left + side, top + side))


@functools.lru_cache(maxsize=1)
def _archive(path: str, changed: int):
    """An open zip archive; ``changed``, when it was, so that another one of the name is opened anew."""
    import zipfile

    return zipfile.ZipFile(path)


def check_size(size: int) -> None:
    """ValueError for the content of a file that no image has."""
    if size > _MOST_BYTES:
        raise ValueError(f"it is of {size:,} bytes, and no image has more than {_MOST_BYTES:,}")


def read_item(path: str, member: str | None, offset: int, length: int) -> bytes:
    """The bytes of an item of a :class:`Batch`.

    Raises:
        OSError: it can't be read.
        ValueError: in one line: a pipe or a device, which may never end, or larger than any image.
    """
    status = os.stat(path)
    if member is not None:
        archive = _archive(path, status.st_mtime_ns)
        check_size(archive.getinfo(member).file_size)
        return archive.read(member)
    if not stat.S_ISREG(status.st_mode):
        raise ValueError("not a regular file but a folder, pipe or device: take it out of the folder")
    check_size(status.st_size if length < 0 else length)
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
            # Not the objects: there, this file is the main module.
            pickle.dump((batch.items, batch.gray, astuple(batch.recipe)), worker.stdin)
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
            items, gray, recipe = pickle.load(source)
            done = decode_batch(Batch(items, gray, Recipe(*recipe)))
            reply = (done.images, done.levels, done.sha256, done.failed)
            pickle.dump(reply, sink, protocol=pickle.HIGHEST_PROTOCOL)
            sink.flush()
    os._exit(0)


if __name__ == "__main__":
    _main()
