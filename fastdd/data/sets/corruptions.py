"""The corruptions of CIFAR-10-C (Hendrycks and Dietterich, ICLR 2019), at their five levels, for 3x32x32 images.

Formulas and constants are those of the published CIFAR-10-C script (github.com/hendrycks/robustness,
``make_cifar_c.py``), which LfF and Biased-DD use unchanged for Corrupted CIFAR-10 and CCIFAR10-DD. Results can't be
bit-equal to the published files: those were drawn without a seed, or from one stream over all images. Here every image
has its own ``numpy.random.RandomState((seed, split, row))``, so that an image's pixels depend neither on the order nor
on which images are built together. Besides that:

* ``motion_blur`` and ``snow`` need no ImageMagick: its kernel is applied as such (:func:`motion_kernel`);
* ``elastic`` samples at exact coordinates, where OpenCV rounds them to 1/32 pixel;
* ``frost`` has the published photographs only if they are given (:func:`frost_textures`), else drawn ones;
* ``jpeg`` depends on the JPEG library that Pillow was built with.

``spatter`` of levels 1 to 3 (water) needs OpenCV, for its edge detector: ``pip install fastdd[corruptions]``.
"""

import functools
import io
import math
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image
from scipy import ndimage

SIZE = 32
LEVELS = 5
# So many that an array of a chunk stays in a core's cache.
_CHUNK = 128
_FROST_FILES = ("frost1.png", "frost2.png", "frost3.png", "frost4.jpg", "frost5.jpg")
_WATER = np.array([175, 238, 238])[:, None, None] / 255
_MUD = np.array([63, 42, 20])[:, None, None] / 255

Randoms = list[np.random.RandomState]


def _each(randoms: Randoms, draw: Callable[[np.random.RandomState], np.ndarray]) -> np.ndarray:
    return np.stack([draw(random) for random in randoms])


def _truncate(unit: np.ndarray) -> np.ndarray:
    """Values of 0..1, clipped, as the published code stores them: truncated, not rounded."""
    return (np.clip(unit, 0, 1) * 255).astype(np.uint8)


def _blur(x: np.ndarray, sigma: float, mode: str = "nearest", truncate: float = 4) -> np.ndarray:
    """Gaussian blur of the last two axes; edges and cut-off are scikit-image's by default."""
    return ndimage.gaussian_filter(x, (0,) * (x.ndim - 2) + (sigma, sigma), mode=mode, truncate=truncate)


def gaussian_noise(x: np.ndarray, level: int, randoms: Randoms) -> np.ndarray:
    """x + N(0, c), c = .04 .06 .08 .09 .10."""
    c = (0.04, 0.06, 0.08, 0.09, 0.10)[level - 1]
    return _truncate(x / 255 + _each(randoms, lambda random: random.normal(0, c, x.shape[1:])))


def shot_noise(x: np.ndarray, level: int, randoms: Randoms) -> np.ndarray:
    """Poisson(c x) / c, c = 500 250 100 75 50."""
    c = (500, 250, 100, 75, 50)[level - 1]
    return _truncate(np.stack([random.poisson(image / 255 * c) / c for random, image in zip(randoms, x, strict=True)]))


def impulse_noise(x: np.ndarray, level: int, randoms: Randoms) -> np.ndarray:
    """A share of all values, .01 .02 .03 .05 .07, set to 0 or 255 with equal chance."""
    share = (0.01, 0.02, 0.03, 0.05, 0.07)[level - 1]
    flipped, salted = _each(randoms, lambda random: random.uniform(size=(2, *x.shape[1:]))).swapaxes(0, 1)
    return np.where(flipped <= share, np.where(salted <= 0.5, np.uint8(255), np.uint8(0)), x)


def speckle_noise(x: np.ndarray, level: int, randoms: Randoms) -> np.ndarray:
    """x + x N(0, c), c = .06 .10 .12 .16 .20."""
    c = (0.06, 0.1, 0.12, 0.16, 0.2)[level - 1]
    return _truncate(x / 255 * (1 + _each(randoms, lambda random: random.normal(0, c, x.shape[1:]))))


def gaussian_blur(x: np.ndarray, level: int, randoms: Randoms) -> np.ndarray:
    """Gaussian blur, sigma .4 .6 .7 .8 1 pixels."""
    return _truncate(_blur(x / 255, (0.4, 0.6, 0.7, 0.8, 1)[level - 1]))


def defocus_kernel(radius: float, sigma: float) -> np.ndarray:
    """A disk of pixels within ``radius``, smoothed by a 3x3 Gaussian of ``sigma``: float64 [5, 5], sum 1."""
    offsets = np.arange(-2, 3)
    disk = (offsets[:, None] ** 2 + offsets**2 <= radius**2) / 1.0
    taps = np.exp(-(np.arange(-1, 2) ** 2) / (2 * sigma**2))
    taps /= taps.sum()
    return ndimage.convolve(disk / disk.sum(), np.outer(taps, taps), mode="constant")


def defocus_blur(x: np.ndarray, level: int, randoms: Randoms) -> np.ndarray:
    """:func:`defocus_kernel` with (radius, sigma) = (.3, .4) (.4, .5) (.5, .6) (1, .2) (1.5, .1)."""
    constants = ((0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1, 0.2), (1.5, 0.1))[level - 1]
    return _truncate(ndimage.correlate(x / 255, defocus_kernel(*constants)[None, None], mode="mirror"))


def glass_blur(x: np.ndarray, level: int, randoms: Randoms) -> np.ndarray:
    """Blur, move every pixel of rows and columns 2 to 31 by a step of 0 or -1 along each axis, blur.

    Published are swaps, with sigma .05 .25 .4 .25 .4 and 1 1 1 2 2 rounds; but a swap of two pixels of a numpy array
    writes the first over itself, which leaves a copy of the upper left neighbour. Going from the last pixel to the
    first, a round never reads what it wrote.
    """
    sigma, rounds = ((0.05, 1), (0.25, 1), (0.4, 1), (0.25, 2), (0.4, 2))[level - 1]
    moved = (_blur(x / 255, sigma) * 255).astype(np.uint8)
    inner = np.arange(2, SIZE)
    steps = _each(randoms, lambda random: random.randint(-1, 1, (rounds, 2, len(inner), len(inner))))
    image = np.arange(len(x))[:, None, None]
    for down, right in steps.transpose(1, 2, 0, 3, 4):
        # Indices around the channel slice: the result is [n, 30, 30, 3].
        taken = moved[image, :, inner[:, None] + down, inner + right]
        moved[:, :, 2:, 2:] = taken.transpose(0, 3, 1, 2)
    return _truncate(_blur(moved / 255, sigma))


def motion_kernel(radius: int, sigma: float) -> np.ndarray:
    """Weights along the motion, ImageMagick's: half a Gaussian, taps 0 to 2 ceil(radius), sum 1."""
    taps = np.exp(-(np.arange(2 * math.ceil(radius) + 1) ** 2) / (2 * sigma**2))
    return taps / taps.sum()


def motion(x: np.ndarray, radius: int, sigma: float, degrees: np.ndarray) -> np.ndarray:
    """ImageMagick's MotionBlurImage: tap i lies at offset ceil(i (cos a, sin a) - 1/2); edge pixels repeat; rounded.

    Args:
        x: uint8 [N, C, H, W].
        degrees: angle of each image, float [N]; 0 is to the right, 90 down.
    """
    angle = np.deg2rad(degrees)[:, None, None]
    image = np.arange(len(x))[:, None, None]
    rows, columns = np.arange(x.shape[2])[:, None], np.arange(x.shape[3])
    by_pixel = np.ascontiguousarray(x.transpose(0, 2, 3, 1)).astype(np.float32)
    out = np.zeros_like(by_pixel)
    for i, weight in enumerate(motion_kernel(radius, sigma).astype(np.float32)):
        down = np.clip(rows + np.ceil(i * np.sin(angle) - 0.5).astype(int), 0, x.shape[2] - 1)
        right = np.clip(columns + np.ceil(i * np.cos(angle) - 0.5).astype(int), 0, x.shape[3] - 1)
        out += weight * by_pixel[image, down, right]
    return np.rint(out).astype(np.uint8).transpose(0, 3, 1, 2)


def motion_blur(x: np.ndarray, level: int, randoms: Randoms) -> np.ndarray:
    """:func:`motion` at -45 to 45 degrees, (radius, sigma) = (6, 1) (6, 1.5) (6, 2) (8, 2) (9, 2.5)."""
    degrees = _each(randoms, lambda random: random.uniform(-45, 45))
    return motion(x, *((6, 1), (6, 1.5), (6, 2), (8, 2), (9, 2.5))[level - 1], degrees)


@functools.lru_cache
def _zoom(factor: float) -> np.ndarray:
    """[32, 32]: a row or column of an image to that of its magnified centre, as published (a linear map)."""
    kept = math.ceil(SIZE / factor)
    start = (SIZE - kept) // 2
    enlarged = ndimage.zoom(np.eye(kept), (factor, 1), order=1)
    matrix = np.zeros((SIZE, SIZE))
    trim = (len(enlarged) - SIZE) // 2
    matrix[:, start : start + kept] = enlarged[trim : trim + SIZE]
    return matrix


def zoom_blur(x: np.ndarray, level: int, randoms: Randoms) -> np.ndarray:
    """The mean of the image and its zooms by 1, 1.01, ..., up to 1.06 1.11 1.15 1.20 1.25.

    The published ranges are meant to end before 1.06, 1.11, ...; by rounding, the first two do not.
    """
    factors = np.arange(1, (1.06, 1.11, 1.16, 1.21, 1.26)[level - 1], 0.01)
    x = x / 255
    total = x.copy()
    for factor in factors:
        matrix = _zoom(float(factor))
        total += matrix @ x @ matrix.T
    return _truncate(total / (len(factors) + 1))


def original(x: np.ndarray, level: int, randoms: Randoms) -> np.ndarray:
    """The image itself: LfF's tenth "corruption" of type 1."""
    return x


def snow(x: np.ndarray, level: int, randoms: Randoms) -> np.ndarray:
    """Flakes of normal noise, zoomed, thresholded and blurred along -135 to -45 degrees, over a whitened image."""
    mean, deviation, factor, least, radius, sigma, kept = (
        (0.1, 0.2, 1, 0.6, 8, 3, 0.95),
        (0.1, 0.2, 1, 0.5, 10, 4, 0.9),
        (0.15, 0.3, 1.75, 0.55, 10, 4, 0.9),
        (0.25, 0.3, 2.25, 0.6, 12, 6, 0.85),
        (0.3, 0.3, 1.25, 0.65, 14, 12, 0.8),
    )[level - 1]
    matrix = _zoom(factor)
    flakes = matrix @ _each(randoms, lambda random: random.normal(mean, deviation, (SIZE, SIZE))) @ matrix.T
    flakes = _truncate(np.where(flakes < least, 0, flakes))[:, None]
    degrees = _each(randoms, lambda random: random.uniform(-135, -45))
    flakes = motion(flakes, radius, sigma, degrees) / 255
    x = x / 255
    gray = (x * np.array([0.299, 0.587, 0.114])[:, None, None]).sum(1, keepdims=True)
    x = kept * x + (1 - kept) * np.maximum(x, gray * 1.5 + 0.5)
    return _truncate(x + flakes + flakes[:, :, ::-1, ::-1])


def frost(x: np.ndarray, level: int, randoms: Randoms, textures: list[np.ndarray]) -> np.ndarray:
    """a x + b ice, clipped: (a, b) = (1, .2) (1, .3) (.9, .4) (.85, .4) (.75, .45); a random crop of one of five.

    Published are six photographs, of which the code draws from the first five.
    """
    a, b = ((1, 0.2), (1, 0.3), (0.9, 0.4), (0.85, 0.4), (0.75, 0.45))[level - 1]
    crops = []
    for random in randoms:
        texture = textures[random.randint(len(textures))]
        top, left = (random.randint(0, side - SIZE) for side in texture.shape[:2])
        crops.append(texture[top : top + SIZE, left : left + SIZE])
    return np.clip(a * x + b * np.stack(crops).transpose(0, 3, 1, 2), 0, 255).astype(np.uint8)


def plasma(randoms: Randoms, decay: float) -> np.ndarray:
    """Clouds by the diamond-square algorithm on a 32x32 torus, scaled to 0..1: float64 [N, 32, 32].

    Midpoints are the mean of four neighbours plus uniform noise, whose width falls by ``decay**2`` a round, as
    published (the noise's bound is squared).
    """
    cloud = np.zeros((len(randoms), SIZE, SIZE))
    step, bound = SIZE, 100.0

    def midpoint(four: np.ndarray) -> np.ndarray:
        return four / 4 + bound * _each(randoms, lambda random: random.uniform(-bound, bound, four.shape[1:]))

    while step >= 2:
        half = step // 2
        corners = cloud[:, ::step, ::step]
        rows = corners + np.roll(corners, -1, 1)
        cloud[:, half::step, half::step] = midpoint(rows + np.roll(rows, -1, 2))
        centres = cloud[:, half::step, half::step]
        above = centres + np.roll(centres, 1, 1) + corners + np.roll(corners, -1, 2)
        cloud[:, ::step, half::step] = midpoint(above)
        beside = centres + np.roll(centres, 1, 2) + corners + np.roll(corners, -1, 1)
        cloud[:, half::step, ::step] = midpoint(beside)
        step, bound = half, bound / decay
    cloud -= cloud.min((1, 2), keepdims=True)
    return cloud / cloud.max((1, 2), keepdims=True)


def fog(x: np.ndarray, level: int, randoms: Randoms) -> np.ndarray:
    """(x + a clouds) max(x) / (max(x) + a): (a, decay) = (.2, 3) (.5, 3) (.75, 2.5) (1, 2) (1.5, 1.75)."""
    a, decay = ((0.2, 3), (0.5, 3), (0.75, 2.5), (1, 2), (1.5, 1.75))[level - 1]
    x = x / 255
    brightest = x.max((1, 2, 3), keepdims=True)
    return _truncate((x + a * plasma(randoms, decay)[:, None]) * brightest / (brightest + a))


def _hsv(x: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Hue, saturation and value, 0..1 (Smith 1978), of [N, 3, H, W] in 0..1."""
    red, green, blue = x.swapaxes(0, 1)
    value = x.max(1)
    chroma = value - x.min(1)
    safe = np.where(chroma == 0, 1, chroma)
    hue = np.where(
        value == blue,
        4 + (red - green) / safe,
        np.where(value == green, 2 + (blue - red) / safe, (green - blue) / safe),
    )
    hue = np.where(chroma == 0, 0, (hue / 6) % 1)
    return hue, chroma / np.where(value == 0, 1, value), value


def _rgb(hue: np.ndarray, saturation: np.ndarray, value: np.ndarray) -> np.ndarray:
    """The inverse of :func:`_hsv`: channel n is v - v s max(0, min(k, 4 - k, 1)), k = (n + 6 h) mod 6, n = 5 3 1."""
    k = (np.array([5, 3, 1])[:, None, None] + 6 * hue[:, None]) % 6
    return value[:, None] * (1 - saturation[:, None] * np.clip(np.minimum(k, 4 - k), 0, 1))


def brightness(x: np.ndarray, level: int, randoms: Randoms) -> np.ndarray:
    """Value (of HSV) + c, at most 1: c = .05 .1 .15 .2 .3."""
    hue, saturation, value = _hsv(x / 255)
    return _truncate(_rgb(hue, saturation, np.clip(value + (0.05, 0.1, 0.15, 0.2, 0.3)[level - 1], 0, 1)))


def saturate(x: np.ndarray, level: int, randoms: Randoms) -> np.ndarray:
    """Saturation (of HSV) a s + b, within 0..1: (a, b) = (.3, 0) (.1, 0) (1.5, 0) (2, .1) (2.5, .2)."""
    a, b = ((0.3, 0), (0.1, 0), (1.5, 0), (2, 0.1), (2.5, 0.2))[level - 1]
    hue, saturation, value = _hsv(x / 255)
    return _truncate(_rgb(hue, np.clip(a * saturation + b, 0, 1), value))


def contrast(x: np.ndarray, level: int, randoms: Randoms) -> np.ndarray:
    """m + c (x - m), m the channel's mean: c = .75 .5 .4 .3 .15."""
    x = x / 255
    means = x.mean((2, 3), keepdims=True)
    return _truncate((x - means) * (0.75, 0.5, 0.4, 0.3, 0.15)[level - 1] + means)


def spatter(x: np.ndarray, level: int, randoms: Randoms) -> np.ndarray:
    """Drops where blurred normal noise passes a threshold: shaded water at levels 1 to 3, mud at 4 and 5."""
    mean, deviation, sigma, least, strength, mud = (
        (0.62, 0.1, 0.7, 0.7, 0.5, False),
        (0.65, 0.1, 0.8, 0.7, 0.5, False),
        (0.65, 0.3, 1, 0.69, 0.5, False),
        (0.65, 0.1, 0.7, 0.69, 0.6, True),
        (0.65, 0.1, 0.5, 0.68, 0.6, True),
    )[level - 1]
    x = x / 255
    liquid = _blur(_each(randoms, lambda random: random.normal(mean, deviation, (SIZE, SIZE))), sigma)
    if not mud:
        cv2 = _opencv()
        drops = (np.where(liquid < least, 0, liquid) * 255).astype(np.uint8)
        return _truncate(x + strength * np.stack([_shade(cv2, drop) for drop in drops])[:, None] * _WATER)
    covered = _blur((liquid > least).astype(float), strength)[:, None]
    covered = np.where(covered < 0.8, 0, covered)
    return _truncate(x * (1 - covered) + _MUD * covered)


def _shade(cv2, drops: np.ndarray) -> np.ndarray:
    """Water's strength, 0..1: drops times an embossed distance to their edges (published constants)."""
    distance = cv2.distanceTransform(255 - cv2.Canny(drops, 50, 150), cv2.DIST_L2, 5)
    distance = cv2.blur(np.minimum(distance, 20), (3, 3)).astype(np.uint8)
    emboss = np.array([[-2, -1, 0], [-1, 1, 1], [0, 1, 2]])
    distance = cv2.blur(cv2.filter2D(cv2.equalizeHist(distance), cv2.CV_8U, emboss), (3, 3))
    shaded = drops * distance.astype(float)
    return shaded / max(shaded.max(), 1)


def _opencv():
    try:
        import cv2
    except ImportError:
        raise RuntimeError(
            "spatter of severities 1 and 2 needs OpenCV: pip install 'fastdd[corruptions]', or use severity 3 or 4"
        ) from None
    return cv2


def _sample(x: np.ndarray, rows: np.ndarray, columns: np.ndarray, fold: Callable[[np.ndarray], np.ndarray]):
    """Bilinear samples of [N, 3, 32, 32] at [N, 32, 32] positions; ``fold`` maps indices beyond the edges inside."""
    by_pixel = np.ascontiguousarray(x.transpose(0, 2, 3, 1))
    image = np.arange(len(x))[:, None, None]
    top, left = np.floor(rows), np.floor(columns)
    down, right = (rows - top)[..., None], (columns - left)[..., None]
    out = 0.0
    for row_step, row_weight in ((0, 1 - down), (1, down)):
        for column_step, column_weight in ((0, 1 - right), (1, right)):
            at = fold(top.astype(int) + row_step), fold(left.astype(int) + column_step)
            out = out + row_weight * column_weight * by_pixel[(image, *at)]
    return out.transpose(0, 3, 1, 2)


def _fold_pixels(index: np.ndarray) -> np.ndarray:
    """... 2 1 | 0 1 ... 31 | 30 29 ...: OpenCV's BORDER_REFLECT_101."""
    index = np.abs(index) % (2 * SIZE - 2)
    return np.minimum(index, 2 * SIZE - 2 - index)


def _fold_edges(index: np.ndarray) -> np.ndarray:
    """... 1 0 | 0 1 ... 31 | 31 30 ...: SciPy's "reflect"."""
    index = index % (2 * SIZE)
    return np.minimum(index, 2 * SIZE - 1 - index)


def elastic(x: np.ndarray, level: int, randoms: Randoms) -> np.ndarray:
    """A random affine map, then displacements a blur(U(-1, 1)) of every pixel.

    With p the points (26, 26), (26, 6), (6, 6): the map takes p to p + U(-c, c). (a, sigma of the blur, c), in pixels,
    are 32 times (0, 0, .08) (.05, .2, .07) (.08, .06, .06) (.1, .04, .05) (.1, .03, .03).
    """
    a, sigma, c = (
        SIZE * value
        for value in ((0, 0, 0.08), (0.05, 0.2, 0.07), (0.08, 0.06, 0.06), (0.1, 0.04, 0.05), (0.1, 0.03, 0.03))[
            level - 1
        ]
    )
    points = np.array([[26, 26], [26, 6], [6, 6]])
    moved = points + _each(randoms, lambda random: random.uniform(-c, c, (3, 2)))
    # A pixel of the result shows the point that the map brings there: [x, y, 1] of the result to (x, y) of the image.
    back = np.linalg.solve(np.concatenate([moved, np.ones((len(x), 3, 1))], 2), np.broadcast_to(points, moved.shape))
    rows, columns = np.mgrid[:SIZE, :SIZE]
    place = np.stack([columns, rows, np.ones_like(rows)], -1) @ back[:, None]
    x = _sample(x / 255, place[..., 1], place[..., 0], _fold_pixels)
    right, down = _each(randoms, lambda random: random.uniform(-1, 1, (2, SIZE, SIZE))).swapaxes(0, 1)
    right, down = (a * _blur(way, sigma, "reflect", 3) for way in (right, down))
    return _truncate(_sample(x, rows + down, columns + right, _fold_edges))


def jpeg(x: np.ndarray, level: int, randoms: Randoms) -> np.ndarray:
    """JPEG, quality 80 65 58 50 40, Pillow's other settings."""
    return np.stack([_jpeg(image, (80, 65, 58, 50, 40)[level - 1]) for image in x])


def _jpeg(image: np.ndarray, quality: int) -> np.ndarray:
    packed = io.BytesIO()
    Image.fromarray(image.transpose(1, 2, 0)).save(packed, "JPEG", quality=quality)
    return np.asarray(Image.open(packed)).transpose(2, 0, 1)


def pixelate(x: np.ndarray, level: int, randoms: Randoms) -> np.ndarray:
    """Resized to 30 28 27 24 20 pixels and back, by Pillow's box filter."""
    side = int(SIZE * (0.95, 0.9, 0.85, 0.75, 0.65)[level - 1])

    def there_and_back(image: np.ndarray) -> np.ndarray:
        small = Image.fromarray(image.transpose(1, 2, 0)).resize((side, side), Image.Resampling.BOX)
        return np.asarray(small.resize((SIZE, SIZE), Image.Resampling.BOX)).transpose(2, 0, 1)

    return np.stack([there_and_back(image) for image in x])


# LfF's names, lower case: the corruption of class k is the k-th of its type.
TYPES = (
    (
        *("snow", "frost", "fog", "brightness", "contrast"),
        *("spatter", "elastic", "jpeg", "pixelate", "saturate"),
    ),
    (
        *("gaussian_noise", "shot_noise", "impulse_noise", "speckle_noise", "gaussian_blur"),
        *("defocus_blur", "glass_blur", "motion_blur", "zoom_blur", "original"),
    ),
)
_FUNCTIONS: dict[str, Callable[..., np.ndarray]] = {name: globals()[name] for names in TYPES for name in names}


def drawn_frost() -> list[np.ndarray]:
    """Five drawn textures of ice, uint8 [100, 140, 3]: ridges of smoothed noise at four scales, dark to white.

    They stand in for the published photographs: mean about (147, 167, 178) and deviation about 30, as those, measured
    at the scale at which they are used. The same on every machine and for every seed.
    """
    textures = []
    for number in range(5):
        random = np.random.RandomState((5, number))
        ice = np.zeros((100, 140))
        for scale in (1, 2, 4, 8):
            noise = ndimage.gaussian_filter(random.normal(size=ice.shape), (scale, 0.6 * scale + 0.4), mode="wrap")
            # Crystals: sharp bright ridges along the zero lines of the noise.
            ice += scale**0.5 * np.exp(-np.abs(noise) / (0.6 * noise.std()))
        ice = (ice - ice.mean()) / ice.std()
        tint = np.array([147, 167, 178]) + np.array([-12, -2, 0]) * (number - 2)
        textures.append(np.clip(tint + 30 * ice[..., None], 0, 255).astype(np.uint8))
    return textures


def frost_textures(folder: str | os.PathLike | None = None) -> list[np.ndarray]:
    """Textures for :func:`frost`: drawn ones, or those of the published photographs.

    Args:
        folder: has ``frost1.png``, ``frost2.png``, ``frost3.png``, ``frost4.jpg``, ``frost5.jpg`` of the CIFAR-10-C
            script (or any photographs of these names). They are reduced to a fifth, as published: OpenCV's bilinear
            reduction by five takes exactly every fifth pixel, from the third on. None: :func:`drawn_frost`.

    Returns:
        uint8 [H, W, 3] each.

    Raises:
        FileNotFoundError: a file is missing: names all that are.
        ValueError: a photograph is too small.
        RuntimeError: a file is no image.
    """
    if folder is None:
        return drawn_frost()
    missing = [name for name in _FROST_FILES if not (Path(folder) / name).is_file()]
    if missing:
        raise FileNotFoundError(f"frost_images: {folder} lacks {', '.join(missing)}")
    textures = []
    for name in _FROST_FILES:
        try:
            with Image.open(Path(folder) / name) as image:
                texture = np.asarray(image.convert("RGB"))[2::5, 2::5]
        except OSError as error:
            raise RuntimeError(f"cannot read {Path(folder) / name}: {error}") from None
        if min(texture.shape[:2]) <= SIZE:
            raise ValueError(
                f"{Path(folder) / name} is too small: both sides must be more than {5 * (SIZE + 1)} pixels"
            )
        textures.append(texture)
    return textures


def corrupt(
    images: np.ndarray,
    name: str,
    level: int,
    rows: np.ndarray,
    seed: int = 0,
    split: int = 0,
    textures: list[np.ndarray] | None = None,
) -> np.ndarray:
    """Images under one corruption.

    Args:
        images: uint8 [N, 3, 32, 32].
        name: of :data:`TYPES`.
        level: CIFAR-10-C's severity, 1..5.
        rows: int [N]: number of each image in its split; with ``seed`` and ``split`` it decides the image's draws.
        seed, split: see ``rows``; 0..2**32 - 1.
        textures: of ``frost``, :func:`frost_textures`; drawn ones by default.

    Returns:
        uint8 [N, 3, 32, 32]. An image's pixels depend on its own row only.

    Raises:
        ValueError: an unknown name, a level outside 1..5, images of another shape.
        RuntimeError: spatter of levels 1 to 3 without OpenCV.

    Cost: 0.1 to 1 ms an image on one core, by corruption; chunks go over all cores that the process may use.

    >>> gray = np.full((1, 3, 32, 32), 100, np.uint8)
    >>> np.unique(corrupt(gray, "brightness", 5, np.arange(1)))
    array([176], dtype=uint8)
    """
    if name not in _FUNCTIONS:
        raise ValueError(f"unknown corruption {name!r}: known are {', '.join(_FUNCTIONS)}")
    if level not in range(1, LEVELS + 1):
        raise ValueError(f"level must be 1..{LEVELS}, not {level}")
    if images.shape[1:] != (3, SIZE, SIZE):
        raise ValueError(f"corruptions need images of the shape [N, 3, {SIZE}, {SIZE}], not {list(images.shape)}")
    function = _FUNCTIONS[name]
    if name == "frost":
        function = functools.partial(frost, textures=frost_textures() if textures is None else textures)
    if name == "spatter" and level <= 3:
        _opencv()

    def chunk(start: int) -> np.ndarray:
        part = slice(start, start + _CHUNK)
        return function(images[part], level, [np.random.RandomState((seed, split, row)) for row in rows[part]])

    out = np.empty_like(images)
    starts = range(0, len(images), _CHUNK)
    with ThreadPoolExecutor(_cores()) as pool:
        for start, built in zip(starts, pool.map(chunk, starts), strict=True):
            out[start : start + _CHUNK] = built
    return out


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
