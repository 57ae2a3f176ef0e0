"""Each corruption against a plain computation of one image, what its formula says of simple images, and its draws."""

import colorsys
import io
import math

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from fastdd.data.sets import corruptions
from fastdd.data.sets.corruptions import TYPES, blurs, corrupt, digital

NAMES = [name for names in TYPES for name in names]
SEED, SPLIT = 3, 1


@pytest.fixture(scope="module")
def images():
    """Smooth colours with an edge and some texture, uint8 [4, 3, 32, 32]."""
    random = np.random.RandomState(0)
    smooth = ndimage.gaussian_filter(random.normal(size=(4, 3, 32, 32)), (0, 0, 3, 3), mode="wrap")
    x = 120 + 300 * smooth + random.normal(0, 8, smooth.shape)
    x[1, :, :, 16:] += 90
    x[2] = x[2, :1]
    x[3] = np.broadcast_to(np.array([250, 10, 90])[:, None, None], (3, 32, 32))
    x[3, :, 8:24, 8:24] = np.array([30, 200, 180])[:, None, None]
    return np.clip(x, 0, 255).astype(np.uint8)


def flat(value):
    return np.full((6, 3, 32, 32), value, np.uint8)


def built(x, name, level, **options):
    return corrupt(x, name, level, np.arange(len(x)), SEED, SPLIT, **options)


def random_of(row):
    return np.random.RandomState((SEED, SPLIT, row))


def plain_gauss(x, sigma, truncate=4, mode="edge"):
    """[H, W] convolved with the sampled Gaussian, by loops."""
    radius = int(truncate * sigma + 0.5)
    taps = [math.exp(-(i**2) / (2 * sigma**2)) for i in range(-radius, radius + 1)]
    taps = np.array(taps) / sum(taps)
    padded = np.pad(x, radius, mode=mode)
    across = sum(w * padded[:, i : i + x.shape[1]] for i, w in enumerate(taps))
    return sum(w * across[i : i + x.shape[0]] for i, w in enumerate(taps))


def plain_motion(x, radius, sigma, degrees):
    """[H, W], a pixel and a tap at a time."""
    taps = [math.exp(-(i**2) / (2 * sigma**2)) for i in range(2 * radius + 1)]
    out = np.zeros(x.shape)
    for r in range(32):
        for c in range(32):
            for i, w in enumerate(taps):
                rr = r + math.ceil(i * math.sin(math.radians(degrees)) - 0.5)
                cc = c + math.ceil(i * math.cos(math.radians(degrees)) - 0.5)
                out[r, c] += w / sum(taps) * x[min(max(rr, 0), 31), min(max(cc, 0), 31)]
    return out


def plain_zoom(x, factor):
    kept = math.ceil(32 / factor)
    start = (32 - kept) // 2
    large = ndimage.zoom(x[start : start + kept, start : start + kept], factor, order=1)
    trim = (len(large) - 32) // 2
    return large[trim : trim + 32, trim : trim + 32]


def plain_plasma(random, decay):
    """Diamond-square, one pixel at a time on the torus; draws row by row, as the squares, then the diamonds."""
    cloud, step, bound = np.zeros((32, 32)), 32, 100.0
    while step >= 2:
        half, n = step // 2, 32 // step
        for offset, neighbours in (
            ((half, half), ((-half, -half), (-half, half), (half, -half), (half, half))),
            ((0, half), ((0, -half), (0, half), (-half, 0), (half, 0))),
            ((half, 0), ((0, -half), (0, half), (-half, 0), (half, 0))),
        ):
            noise = random.uniform(-bound, bound, (n, n))
            for i in range(n):
                for j in range(n):
                    r, c = i * step + offset[0], j * step + offset[1]
                    mean = sum(cloud[(r + a) % 32, (c + b) % 32] for a, b in neighbours) / 4
                    cloud[r, c] = mean + bound * noise[i, j]
        step, bound = half, bound / decay
    cloud -= cloud.min()
    return cloud / cloud.max()


def close(found, exact, tolerance=0):
    """``found`` is 255 * exact truncated; float rounding may decide a level where the value is whole."""
    exact = np.clip(exact, 0, 1) * 255
    assert (found <= exact + 1e-6 + tolerance).all()
    assert (found > exact - 1 - 1e-6 - tolerance).all()


@pytest.mark.parametrize("level", [1, 5])
def test_noises(images, level):
    pick = level - 1
    for row, image in enumerate(images):
        x = image / 255
        close(
            built(images, "gaussian_noise", level)[row],
            x + random_of(row).normal(0, (0.04, 0.06, 0.08, 0.09, 0.1)[pick], x.shape),
        )
        close(
            built(images, "speckle_noise", level)[row],
            x + x * random_of(row).normal(0, (0.06, 0.1, 0.12, 0.16, 0.2)[pick], x.shape),
        )
        c = (500, 250, 100, 75, 50)[pick]
        close(built(images, "shot_noise", level)[row], random_of(row).poisson(x * c) / c)


def test_statistics_of_noise():
    """Of levels 1 and 5, on mid-gray: mean kept, deviation as the constants say, to 4 standard errors."""
    n = 6 * 3072
    for name, level, deviation in (
        ("gaussian_noise", 1, 0.04),
        ("gaussian_noise", 5, 0.1),
        ("speckle_noise", 5, 0.2 * 128 / 255),
        ("shot_noise", 1, math.sqrt(128 / 255 / 500)),
        ("shot_noise", 5, math.sqrt(128 / 255 / 50)),
    ):
        # Truncation takes half a level off.
        noise = (built(flat(128), name, level).astype(float) + 0.5 - 128) / 255
        assert abs(noise.mean()) < 4 * deviation / math.sqrt(n)
        assert abs(noise.std() / deviation - 1) < 4 / math.sqrt(2 * n) + 0.01
    for level, share in ((1, 0.01), (5, 0.07)):
        found = built(flat(128), "impulse_noise", level)
        white, black = (found == 255).mean(), (found == 0).mean()
        assert ((found == 128) | (found == 255) | (found == 0)).all()
        for half in (white, black):
            assert abs(half - share / 2) < 4 * math.sqrt(share / 2 / n)


@pytest.mark.parametrize("level", [1, 3, 5])
def test_gaussian_and_defocus_blur(images, level):
    sigma = (0.4, 0.6, 0.7, 0.8, 1)[level - 1]
    radius, alias = ((0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1, 0.2), (1.5, 0.1))[level - 1]
    x, y = np.meshgrid(np.arange(-8, 9), np.arange(-8, 9))
    disk = (x**2 + y**2 <= radius**2).astype(float)
    taps = np.exp(-(np.arange(-1, 2) ** 2) / (2 * alias**2))
    taps /= taps.sum()
    disk = np.pad(disk / disk.sum(), 1)
    kernel = sum(taps[i] * taps[j] * disk[i : i + 17, j : j + 17] for i in range(3) for j in range(3))
    soft, out_of_focus = (built(images, name, level) for name in ("gaussian_blur", "defocus_blur"))
    for row, channel in ((0, 0), (3, 2)):
        image = images[row, channel] / 255
        close(soft[row, channel], plain_gauss(image, sigma))
        padded = np.pad(image, 8, mode="reflect")
        exact = sum(kernel[i, j] * padded[i : i + 32, j : j + 32] for i in range(17) for j in range(17))
        close(out_of_focus[row, channel], exact)


@pytest.mark.parametrize(("side", "level"), [(64, 5), (64, 1), (20, 5)])
def test_defocus_blur_grows_with_the_image(side, level):
    """By a plain sum over the disk, whose radius is that of 32 pixels, or twice that of 64."""
    radius, alias = {1: (0.3, 0.4), 5: (1.5, 0.1)}[level]
    radius *= max(1, side / 32)
    image = np.random.RandomState(3).randint(0, 256, (1, 1, side, side + 4)).astype(np.uint8)
    x, y = np.meshgrid(np.arange(-5, 6), np.arange(-5, 6))
    disk = (x**2 + y**2 <= radius**2).astype(float)
    taps = np.exp(-(np.arange(-1, 2) ** 2) / (2 * alias**2))
    taps /= taps.sum()
    disk = np.pad(disk / disk.sum(), 1)
    kernel = sum(taps[i] * taps[j] * disk[i : i + 11, j : j + 11] for i in range(3) for j in range(3))
    padded = np.pad(image[0, 0] / 255, 5, mode="reflect")
    exact = sum(kernel[i, j] * padded[i : i + side, j : j + side + 4] for i in range(11) for j in range(11))
    close(built(image, "defocus_blur", level)[0, 0], exact)


def test_noise_and_pixels_of_images_of_any_size():
    gray = np.full((6, 1, 40, 24), 128, np.uint8)
    noise = (built(gray, "gaussian_noise", 5).astype(float) + 0.5 - 128) / 255
    assert abs(noise.std() / 0.1 - 1) < 4 / math.sqrt(2 * gray.size) + 0.01
    image = np.random.RandomState(4).randint(0, 256, (1, 3, 40, 24)).astype(np.uint8)
    pixelated = built(image, "pixelate", 4)[0]
    for channel in range(3):
        plane = Image.fromarray(image[0, channel])
        there = plane.resize((18, 30), Image.Resampling.BOX).resize((24, 40), Image.Resampling.BOX)
        np.testing.assert_array_equal(pixelated[channel], np.asarray(there))
        alone = built(image[:, channel : channel + 1], "pixelate", 4)
        np.testing.assert_array_equal(alone[0, 0], pixelated[channel])
    for name in ("fog", "jpeg", "motion_blur"):
        with pytest.raises(
            ValueError, match=r"corruptions need images of the shape \[N, 3, 32, 32\], not \[1, 3, 40, 24\]"
        ):
            built(image, name, 4)


@pytest.mark.parametrize("level", [3, 5])
def test_glass_blur_is_the_published_loop(images, level):
    sigma, rounds = {3: (0.4, 1), 5: (0.4, 2)}[level]
    found = built(images, "glass_blur", level)[0]
    x = np.stack([(plain_gauss(channel / 255, sigma) * 255).astype(np.uint8) for channel in images[0]], -1)
    # The steps of a round, all down, then all right, of pixels in rising order.
    for down, right in random_of(0).randint(-1, 1, (rounds, 2, 30, 30)):
        for r in range(31, 1, -1):
            for c in range(31, 1, -1):
                rr, cc = r + down[r - 2, c - 2], c + right[r - 2, c - 2]
                # With numpy's views this "swap" copies, as it does in the published code.
                x[r, c], x[rr, cc] = x[rr, cc], x[r, c]
    close(found, np.stack([plain_gauss(x[..., channel] / 255, sigma) for channel in range(3)]))


@pytest.mark.parametrize("level", [1, 5])
def test_motion_blur(images, level):
    radius, sigma = {1: (6, 1), 5: (9, 2.5)}[level]
    found = built(images, "motion_blur", level)
    degrees = random_of(1).uniform(-45, 45)
    exact = plain_motion(images[1, 1].astype(float), radius, sigma, degrees)
    assert np.abs(found[1, 1] - exact).max() <= 0.5 + 1e-3


def test_motion_smears_a_point_against_the_angle():
    x = np.zeros((2, 1, 32, 32), np.uint8)
    x[:, :, 16, 16] = 255
    found = blurs.motion(x, 3, 2.0, np.array([0.0, 90.0]))
    weights = np.exp(-(np.arange(7) ** 2) / 8)
    trail = np.rint(255 * weights / weights.sum())
    np.testing.assert_array_equal(found[0, 0, 16, 16:9:-1], trail)
    np.testing.assert_array_equal(found[1, 0, 16:9:-1, 16], trail)
    assert abs(int(found[0].sum()) - 255) <= 3


@pytest.mark.parametrize("level", [1, 5])
def test_zoom_blur(images, level):
    # Six were meant at level 1. The last of level 5 is just above 1.25, so that 26 pixels grow to 33, not 32.
    factors = [1 + i * ((1 + 0.01) - 1) for i in range({1: 7, 5: 26}[level])]
    found = built(images, "zoom_blur", level)
    image = images[1, 0] / 255
    close(found[1, 0], (image + sum(plain_zoom(image, factor) for factor in factors)) / (len(factors) + 1), 1e-3)


@pytest.mark.parametrize("level", [1, 4, 5])
def test_snow(images, level):
    constants = {
        1: (0.1, 0.2, 1, 0.6, 8, 3, 0.95),
        4: (0.25, 0.3, 2.25, 0.6, 12, 6, 0.85),
        5: (0.3, 0.3, 1.25, 0.65, 14, 12, 0.8),
    }
    mean, deviation, factor, least, radius, sigma, kept = constants[level]
    random = random_of(1)
    layer = plain_zoom(random.normal(mean, deviation, (32, 32)), factor)
    layer[layer < least] = 0
    layer = (np.clip(layer, 0, 1) * 255).astype(np.uint8).astype(float)
    layer = np.rint(plain_motion(layer, radius, sigma, random.uniform(-135, -45))) / 255
    x = images[1] / 255
    gray = 0.299 * x[0] + 0.587 * x[1] + 0.114 * x[2]
    x = kept * x + (1 - kept) * np.maximum(x, gray * 1.5 + 0.5)
    # Halves may round either way: a level of the layer, which is added twice.
    close(built(images, "snow", level)[1], x + layer + np.rot90(layer, 2), 2)


@pytest.mark.parametrize("level", [1, 5])
def test_fog(images, level):
    amount, decay = {1: (0.2, 3), 5: (1.5, 1.75)}[level]
    x = images[0] / 255
    exact = (x + amount * plain_plasma(random_of(0), decay)) * x.max() / (x.max() + amount)
    close(built(images, "fog", level)[0], exact)


@pytest.mark.parametrize("level", [1, 3, 5])
def test_colours_through_hsv(images, level):
    brighter, stronger = (built(images, name, level) for name in ("brightness", "saturate"))
    plus = (0.05, 0.1, 0.15, 0.2, 0.3)[level - 1]
    a, b = ((0.3, 0), (0.1, 0), (1.5, 0), (2, 0.1), (2.5, 0.2))[level - 1]
    for row in (0, 2, 3):
        for r, c in ((0, 0), (13, 9), (31, 20)):
            h, s, v = colorsys.rgb_to_hsv(*images[row, :, r, c] / 255)
            close(brighter[row, :, r, c], np.array(colorsys.hsv_to_rgb(h, s, min(v + plus, 1))))
            close(stronger[row, :, r, c], np.array(colorsys.hsv_to_rgb(h, min(a * s + b, 1), v)))


def test_contrast(images):
    for level, c in enumerate((0.75, 0.5, 0.4, 0.3, 0.15), 1):
        x = images / 255
        means = np.array([[channel.mean() for channel in image] for image in x])[:, :, None, None]
        close(built(images, "contrast", level), means + c * (x - means))


@pytest.mark.parametrize("level", [4, 5])
def test_mud(images, level):
    random = random_of(0)
    liquid = plain_gauss(random.normal(0.65, 0.1, (32, 32)), {4: 0.7, 5: 0.5}[level])
    mask = plain_gauss((liquid > {4: 0.69, 5: 0.68}[level]).astype(float), 0.6)
    mask[mask < 0.8] = 0
    mud = np.array([63, 42, 20])[:, None, None] / 255
    close(built(images, "spatter", level)[0], images[0] / 255 * (1 - mask) + mud * mask)
    assert 0.003 < (mask > 0).mean() < 0.5


@pytest.mark.parametrize("level", [1, 2, 3])
def test_water(level):
    """Pale turquoise, at most half of it; nothing where the liquid is below its threshold."""
    pytest.importorskip("cv2")
    mean, deviation, sigma, least = {1: (0.62, 0.1, 0.7, 0.7), 2: (0.65, 0.1, 0.8, 0.7), 3: (0.65, 0.3, 1, 0.69)}[level]
    found = built(flat(0), "spatter", level)
    for row in range(2):
        liquid = plain_gauss(random_of(row).normal(mean, deviation, (32, 32)), sigma)
        assert not found[row][:, liquid < least].any()
    # The wettest pixel has half the colour, truncated.
    assert found.max((2, 3)).tolist() == [[87, 119, 119]] * 6


def test_water_without_opencv(images, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "cv2", None)
    with pytest.raises(RuntimeError, match=r"fastdd\[corruptions\]"):
        built(images, "spatter", 2)
    built(images, "spatter", 5)


@pytest.mark.parametrize("level", [1, 2, 5])
def test_elastic(images, level):
    cv2 = pytest.importorskip("cv2")
    a, sigma, c = {1: (0, 0, 0.08), 2: (0.05, 0.2, 0.07), 5: (0.1, 0.03, 0.03)}[level]
    random = random_of(1)
    points = np.float32([[26, 26], [26, 6], [6, 6]])
    moved = points + random.uniform(-32 * c, 32 * c, (3, 2))
    smooth = ndimage.gaussian_filter(images[1] / 255, (0, 2, 2)).astype(np.float32)
    warped = cv2.warpAffine(
        np.ascontiguousarray(smooth.transpose(1, 2, 0)),
        cv2.getAffineTransform(points, moved.astype(np.float32)),
        (32, 32),
        borderMode=cv2.BORDER_REFLECT_101,
    )
    right, down = random.uniform(-1, 1, (2, 32, 32))
    if a:
        right, down = (32 * a * plain_gauss(way, 32 * sigma, 3, "symmetric") for way in (right, down))
    else:
        right = down = np.zeros((32, 32))
    rows, columns = np.mgrid[:32, :32]
    at = rows + down, columns + right
    exact = np.stack([ndimage.map_coordinates(warped[..., k], at, order=1, mode="reflect") for k in range(3)])
    quantised = (smooth * 255).astype(np.uint8)
    found = corrupt(quantised[None], "elastic", level, np.array([1]), SEED, SPLIT)[0]
    # OpenCV's coordinates are whole 1/32 pixels; the image was truncated to levels.
    steepest = max(np.abs(np.diff(smooth * 255, axis=axis)).max() for axis in (1, 2))
    assert np.abs(found - exact * 255).max() <= 2 + steepest / 16


def test_elastic_far_outside_repeats_by_reflection():
    assert digital._fold_pixels(np.array([-2, -1, 0, 31, 32, 33, 70])).tolist() == [2, 1, 0, 31, 30, 29, 8]
    assert digital._fold_edges(np.array([-2, -1, 0, 31, 32, 33, 70])).tolist() == [1, 0, 0, 31, 31, 30, 6]


def test_jpeg_and_pixelate_are_pillows(images):
    for level, (quality, side) in enumerate(((80, 30), (65, 28), (58, 27), (50, 24), (40, 20)), 1):
        image = Image.fromarray(images[0].transpose(1, 2, 0))
        packed = io.BytesIO()
        image.save(packed, "JPEG", quality=quality)
        found = [built(images, name, level)[0].transpose(1, 2, 0) for name in ("jpeg", "pixelate")]
        np.testing.assert_array_equal(found[0], np.asarray(Image.open(packed)))
        boxes = image.resize((side, side), Image.Resampling.BOX).resize((32, 32), Image.Resampling.BOX)
        np.testing.assert_array_equal(found[1], np.asarray(boxes))


@pytest.fixture
def photographs(tmp_path):
    """Frost photographs of one colour each: 10, 20, 30, 40, 50."""
    for number in range(1, 6):
        suffix = "png" if number <= 3 else "jpg"
        Image.new("RGB", (200, 190), (10 * number,) * 3).save(tmp_path / f"frost{number}.{suffix}", quality=100)
    return tmp_path


def test_frost_blends_the_given_photographs(photographs):
    textures = corruptions.frost_textures(photographs)
    assert [texture.shape for texture in textures] == [(38, 40, 3)] * 5
    for level, (a, b) in enumerate(((1, 0.2), (1, 0.3), (0.9, 0.4), (0.85, 0.4), (0.75, 0.45)), 1):
        found = built(flat(100), "frost", level, textures=textures)
        possible = {int(100 * a + b * 10 * number) for number in range(1, 6)}
        assert {int(value) for value in np.unique(found)} <= possible
        # Six images draw more than one of five photographs.
        assert len(np.unique(found[:, 0, 0, 0])) > 1
        assert (found == found[:, :1, :1, :1]).all()


def test_frost_takes_every_fifth_pixel_from_the_third(photographs):
    columns = np.broadcast_to(np.arange(200, dtype=np.uint8)[None, :, None], (190, 200, 3))
    Image.fromarray(np.ascontiguousarray(columns)).save(photographs / "frost1.png")
    assert corruptions.frost_textures(photographs)[0][0, :, 0].tolist() == list(range(2, 200, 5))


def test_drawn_frost_is_like_the_photographs():
    """Means and deviations of the published ones at their scale: (146, 167, 178) and 28 to 39 over the five."""
    drawn = corruptions.drawn_frost()
    assert len({texture.tobytes() for texture in drawn}) == 5
    means = np.mean([texture.mean((0, 1)) for texture in drawn], 0)
    np.testing.assert_allclose(means, (146, 167, 178), atol=4)
    assert 20 < np.mean([texture.std((0, 1)).mean() for texture in drawn]) < 40


def test_original_changes_nothing(images):
    np.testing.assert_array_equal(built(images, "original", 5), images)


@pytest.mark.parametrize(
    "name",
    [
        *("gaussian_blur", "defocus_blur", "glass_blur", "motion_blur", "zoom_blur", "elastic"),
        *("contrast", "pixelate", "jpeg", "saturate"),
    ],
)
def test_a_gray_image_stays_as_it_is(name):
    for level in (1, 5) if name != "saturate" else (1, 3):
        # Truncation of 99.999... takes a level off, twice in glass_blur.
        assert np.abs(built(flat(100), name, level).astype(int) - 100).max() <= (2 if name == "glass_blur" else 1)


@pytest.mark.parametrize(
    "name",
    [
        *("gaussian_noise", "shot_noise", "impulse_noise", "speckle_noise", "gaussian_blur"),
        *("motion_blur", "zoom_blur", "fog", "brightness", "contrast", "jpeg"),
    ],
)
def test_a_higher_level_changes_more(images, name):
    x = np.concatenate([images] * 3)
    changes = [np.abs(built(x, name, level).astype(int) - x).mean() for level in range(1, 6)]
    assert changes == sorted(changes)
    assert changes[0] < changes[-1]


@pytest.mark.parametrize("name", NAMES)
def test_an_image_depends_on_its_row_only(images, name):
    """Not on the other images, their order, the chunks or the threads."""
    many = np.concatenate([images] * 40)
    rows = np.arange(len(many))
    whole = corrupt(many, name, 4, rows, SEED, SPLIT)
    order = np.random.RandomState(1).permutation(len(many))[:50]
    np.testing.assert_array_equal(corrupt(many[order], name, 4, rows[order], SEED, SPLIT), whole[order])
    assert whole.dtype == np.uint8


@pytest.mark.parametrize("name", [*TYPES[1][:4], "glass_blur", "motion_blur", *TYPES[0][:3], "spatter", "elastic"])
def test_the_seed_the_split_and_the_row_decide_the_draws(name):
    x = np.linspace(0, 255, 3072).astype(np.uint8).reshape(1, 3, 32, 32)

    def pixels(row=0, seed=0, split=0):
        return corrupt(x, name, 5, np.array([row]), seed, split).tobytes()

    assert pixels() == pixels()
    assert len({pixels(), pixels(row=1), pixels(seed=1), pixels(split=1)}) == 4


def test_bad_input(images, tmp_path):
    for arguments, why in (
        ((images, "rain", 1), "unknown corruption 'rain'"),
        ((images, "fog", 0), "level must be 1..5, not 0"),
        ((images, "fog", 6), "level must be 1..5, not 6"),
        ((images[:, :, :28], "fog", 1), r"shape \[N, 3, 32, 32\], not \[4, 3, 28, 32\]"),
    ):
        with pytest.raises(ValueError, match=why):
            built(*arguments)
    with pytest.raises(FileNotFoundError, match=r"lacks frost1.png, .*frost5.jpg"):
        corruptions.frost_textures(tmp_path)


def test_bad_photographs_of_frost(photographs):
    Image.new("RGB", (100, 100)).save(photographs / "frost2.png")
    with pytest.raises(ValueError, match=r"frost2.png is too small"):
        corruptions.frost_textures(photographs)
    (photographs / "frost2.png").write_bytes(b"no image")
    with pytest.raises(RuntimeError, match=r"cannot read .*frost2.png"):
        corruptions.frost_textures(photographs)
