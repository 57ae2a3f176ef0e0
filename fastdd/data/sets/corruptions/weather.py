"""Weather: snow, frost, fog, and spatters of water and mud."""

import numpy as np

from fastdd.data.sets.corruptions.base import SIZE, Randoms, draws_of, gaussian, magnification, to_bytes
from fastdd.data.sets.corruptions.blurs import motion

_WATER = np.array([175, 238, 238])[:, None, None] / 255
_MUD = np.array([63, 42, 20])[:, None, None] / 255


def snow(x: np.ndarray, level: int, randoms: Randoms) -> np.ndarray:
    """Flakes of normal noise, zoomed, thresholded and blurred along -135 to -45 degrees, over a whitened image."""
    mean, deviation, factor, least, radius, sigma, kept = (
        (0.1, 0.2, 1, 0.6, 8, 3, 0.95),
        (0.1, 0.2, 1, 0.5, 10, 4, 0.9),
        (0.15, 0.3, 1.75, 0.55, 10, 4, 0.9),
        (0.25, 0.3, 2.25, 0.6, 12, 6, 0.85),
        (0.3, 0.3, 1.25, 0.65, 14, 12, 0.8),
    )[level - 1]
    matrix = magnification(factor)
    flakes = matrix @ draws_of(randoms, lambda random: random.normal(mean, deviation, (SIZE, SIZE))) @ matrix.T
    flakes = to_bytes(np.where(flakes < least, 0, flakes))[:, None]
    degrees = draws_of(randoms, lambda random: random.uniform(-135, -45))
    flakes = motion(flakes, radius, sigma, degrees) / 255
    x = x / 255
    gray = (x * np.array([0.299, 0.587, 0.114])[:, None, None]).sum(1, keepdims=True)
    x = kept * x + (1 - kept) * np.maximum(x, gray * 1.5 + 0.5)
    return to_bytes(x + flakes + flakes[:, :, ::-1, ::-1])


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
        return four / 4 + bound * draws_of(randoms, lambda random: random.uniform(-bound, bound, four.shape[1:]))

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
    return to_bytes((x + a * plasma(randoms, decay)[:, None]) * brightest / (brightest + a))


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
    liquid = gaussian(draws_of(randoms, lambda random: random.normal(mean, deviation, (SIZE, SIZE))), sigma)
    if not mud:
        cv2 = opencv()
        drops = (np.where(liquid < least, 0, liquid) * 255).astype(np.uint8)
        return to_bytes(x + strength * np.stack([_shade(cv2, drop) for drop in drops])[:, None] * _WATER)
    covered = gaussian((liquid > least).astype(float), strength)[:, None]
    covered = np.where(covered < 0.8, 0, covered)
    return to_bytes(x * (1 - covered) + _MUD * covered)


def _shade(cv2, drops: np.ndarray) -> np.ndarray:
    """Water's strength, 0..1: drops times an embossed distance to their edges (published constants)."""
    distance = cv2.distanceTransform(255 - cv2.Canny(drops, 50, 150), cv2.DIST_L2, 5)
    distance = cv2.blur(np.minimum(distance, 20), (3, 3)).astype(np.uint8)
    emboss = np.array([[-2, -1, 0], [-1, 1, 1], [0, 1, 2]])
    distance = cv2.blur(cv2.filter2D(cv2.equalizeHist(distance), cv2.CV_8U, emboss), (3, 3))
    shaded = drops * distance.astype(float)
    return shaded / max(shaded.max(), 1)


def opencv():
    try:
        import cv2
    except ImportError:
        raise RuntimeError(
            "spatter of severities 1 and 2 needs OpenCV: pip install 'fastdd[corruptions]', or use severity 3 or 4"
        ) from None
    return cv2
