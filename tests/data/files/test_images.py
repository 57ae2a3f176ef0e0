"""Image files: what is decoded, in which order, by how many processes, and the stores that they are streamed into."""

import filecmp
import io
import os
import resource
import shutil
import signal
import subprocess
import sys
import tarfile
import tracemalloc
import zipfile

import numpy as np
import pytest
from PIL import Image

from fastdd.compat.hook.torchvision_substitute import transforms
from fastdd.data import build, check_store, load, open_store, save_store
from fastdd.data.files import building, decode
from fastdd.data.files.decode import Batch, Recipe, decode_all
from fastdd.data.files.statistics import level_statistics
from fastdd.data.files.tree import Tree
from fastdd.data.sets import builders
from fastdd.data.sets.balance import drop_to_ratio, even_cells


def jpeg(pixels) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format="JPEG", quality=90)
    return file.getvalue()


def photographs(folder, count, size=(24, 32), seed=0):
    """Two classes with ``count`` smooth coloured images each, and half as many for the test."""
    random = np.random.RandomState(seed)
    for split, n in (("train", count), ("test", count // 2)):
        for name in ("cat", "dog"):
            (folder / split / name).mkdir(parents=True)
            for number in range(n):
                coarse = Image.fromarray(random.randint(0, 256, (4, 4, 3)).astype(np.uint8))
                pixels = np.asarray(coarse.resize(size[::-1], Image.Resampling.BILINEAR))
                (folder / split / name / f"{number:04}.jpg").write_bytes(jpeg(pixels))
    return folder


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    return photographs(tmp_path_factory.mktemp("photos"), 60)


@pytest.fixture
def small_steps(monkeypatch):
    """A checkpoint after every batch, and batches of 16 images of 16x16."""
    monkeypatch.setattr(building, "_CHECKPOINT_BYTES", 1)
    monkeypatch.setattr("fastdd.data.files.plan._BATCH_IMAGES", 16)


def same_files(one, two):
    names = sorted(os.listdir(one))
    assert names == sorted(os.listdir(two))
    return filecmp.cmpfiles(one, two, names, shallow=False)[0] == names


def encoded(image, format="PNG", **options) -> bytes:
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def of_white_is_zero(image) -> bytes:
    return encoded(image, "TIFF", tiffinfo={262: 0})


class TestShown:
    """Pictures as a viewer shows them."""

    RAMP = np.arange(256, dtype=np.uint16).reshape(16, 16)

    @pytest.mark.parametrize("format", ["PNG", "TIFF", "PPM"])
    def test_gray_of_16_bits_keeps_its_upper_eight(self, format):
        content = encoded(Image.fromarray(self.RAMP * 257), format)
        assert (decode.decode(content, Recipe(16)) == self.RAMP).all()

    def test_gray_of_16_bits_big_endian_and_white_is_zero(self):
        pixels = (self.RAMP * 257).byteswap().tobytes()
        assert (
            decode.decode(encoded(Image.frombytes("I;16B", (16, 16), pixels), "TIFF"), Recipe(16)) == self.RAMP
        ).all()
        content = of_white_is_zero(Image.fromarray(self.RAMP * 257))
        assert (decode.decode(content, Recipe(16)) == 255 - self.RAMP).all()

    def test_one_value_of_gray_of_16_bits_that_is_transparent_is_white(self):
        pixels = np.full((8, 8), 1000, np.uint16)
        pixels[0] = 7
        shown = decode.decode(encoded(Image.fromarray(pixels), transparency=7), Recipe(8))
        assert (shown[:, 0] == 255).all()
        assert (shown[:, 1:] == 1000 >> 8).all()

    def test_gray_in_floating_point_is_from_0_to_1(self):
        content = encoded(Image.fromarray((self.RAMP / 255).astype(np.float32)), "TIFF")
        assert (decode.decode(content, Recipe(16)) == self.RAMP).all()

    @pytest.mark.parametrize(
        ("pixels", "message"),
        [
            (np.full((4, 4), 1.5, np.float32), "gray in floating point from 1.5 to 1.5, not 0 to 1: save it with"),
            (np.full((4, 4), np.nan, np.float32), "gray in floating point from nan to nan"),
            (np.full((4, 4), 70_000, np.int32), "gray in 32 bits, or with a sign, whose white is not known"),
        ],
    )
    def test_gray_of_no_known_white_is_refused(self, pixels, message):
        with pytest.raises(ValueError, match=message):
            decode.decode(encoded(Image.fromarray(pixels), "TIFF"), Recipe(4))

    @pytest.mark.parametrize("orientation", range(1, 9))
    @pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF"])
    def test_an_image_is_turned_as_its_exif_says(self, format, orientation):
        upright = np.zeros((16, 16, 3), np.uint8)
        upright[:8, :8] = 255
        upright[:8, 8:] = 128  # no two of the eight orientations look alike
        backwards = {6: "ROTATE_90", 8: "ROTATE_270", 3: "ROTATE_180", 2: "FLIP_LEFT_RIGHT", 4: "FLIP_TOP_BOTTOM"}
        backwards |= {5: "TRANSPOSE", 7: "TRANSVERSE"}
        image, exif = Image.fromarray(upright), Image.Exif()
        if orientation > 1:
            image = image.transpose(Image.Transpose[backwards[orientation]])
        exif[0x0112] = orientation
        shown = decode.decode(encoded(image, format, exif=exif), Recipe(16))
        assert np.abs(shown.transpose(1, 2, 0).astype(int) - upright).max() < 40

    def test_damaged_exif_is_ignored(self):
        content = encoded(Image.new("RGB", (8, 8), "red"), "PNG", exif=b"Exif\0\0nonsense")
        assert decode.decode(content, Recipe(8))[:, 0, 0].tolist() == [255, 0, 0]

    @pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
    def test_what_is_transparent_lies_on_white(self, mode):
        image = Image.new("RGBA", (8, 8), (0, 0, 0, 0))
        image.paste((0, 0, 0, 255), (0, 0, 8, 4))
        shown = decode.decode(encoded(image.quantize(4) if mode == "P" else image.convert(mode)), Recipe(8))
        assert (shown[:, :4] == 0).all()
        assert (shown[:, 4:] == 255).all()

    @pytest.mark.parametrize("mode", ["1", "L", "P", "LA", "RGB", "RGBA", "CMYK", "YCbCr"])
    def test_what_hides_nothing_is_as_stored(self, mode):
        colours = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
        content = encoded(Image.fromarray(colours).convert(mode), "TIFF" if mode in ("CMYK", "YCbCr") else "PNG")
        shown, stored = (decode.decode(content, Recipe(8, as_stored=as_stored)) for as_stored in (False, True))
        assert (shown == stored).all()

    def test_of_several_frames_it_is_the_first(self):
        first, second = (Image.new("RGB", (8, 8), colour) for colour in ("red", "blue"))
        content = encoded(first, "GIF", save_all=True, append_images=[second])
        assert decode.decode(content, Recipe(8))[:, 0, 0].tolist() == [255, 0, 0]

    def test_published_sets_keep_pixels_as_stored(self):
        image, exif = Image.new("RGBA", (8, 8), (255, 0, 0, 0)), Image.Exif()
        assert decode.decode(encoded(image), Recipe(8, as_stored=True))[:, 0, 0].tolist() == [255, 0, 0]
        exif[0x0112] = 3
        image = Image.fromarray(self.RAMP.astype(np.uint8))
        assert (decode.decode(encoded(image, exif=exif), Recipe(16, as_stored=True)) == self.RAMP).all()

    def test_postscript_is_never_run(self, tmp_path, monkeypatch):
        program = tmp_path / "gs"
        program.write_text(f"#!/bin/sh\ntouch {tmp_path}/was-run\n")
        program.chmod(0o755)
        monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
        content = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n%%EOF\n"
        with pytest.raises(ValueError, match=r"not an image \(PNG, JPEG, "):
            decode.decode(content, Recipe(8))
        assert not (tmp_path / "was-run").exists()

    @pytest.mark.parametrize("format", ["gnu", "posix"])
    def test_sparse_files_of_a_tar_archive_are_refused(self, tmp_path, format):
        """Read as one piece, they would have the pixels of what follows."""
        folder = tmp_path / "train" / "a"
        folder.mkdir(parents=True)
        with (folder / "hole.bmp").open("wb") as file:
            file.write(encoded(Image.new("L", (8, 8)), "BMP"))
            file.truncate(1 << 20)
        # tarfile writes no sparse files.
        command = ["tar", "-S", f"--format={format}", "-cf", "d.tar", "train"]
        if shutil.which("tar") is None or subprocess.run(command, cwd=tmp_path).returncode:
            pytest.skip("no GNU tar")
        with pytest.raises(RuntimeError, match=r"d\.tar holds train/a/hole\.bmp as a sparse file: pack it without -S"):
            Tree(tmp_path / "d.tar")

    def test_links_of_a_tar_archive_are_followed_or_told(self, tmp_path):
        folder = tmp_path / "a"
        folder.mkdir()
        (folder / "0.png").write_bytes(encoded(Image.new("L", (8, 8))))
        os.link(folder / "0.png", folder / "1.png")
        (folder / "2.png").symlink_to("0.png")
        with tarfile.open(tmp_path / "d.tar", "w") as archive:
            archive.add(folder, "a")
        tree = Tree(tmp_path / "d.tar")
        assert tree.images("a") == ["a/0.png", "a/1.png"]
        assert tree.read("a/0.png") == tree.read("a/1.png") == (folder / "0.png").read_bytes()
        assert tree.left_out(["a"]) == {"links, pipes and devices of the archive": ["a/2.png"]}

    @pytest.mark.parametrize("kind", ["pipe", "device"])
    def test_pipes_and_devices_are_refused(self, tmp_path, kind):
        path = tmp_path / "x.png"
        os.mkfifo(path) if kind == "pipe" else path.symlink_to("/dev/zero")
        done = decode.decode_batch(Batch([(str(path), None, 0, -1)], np.zeros(1, bool), Recipe(8)))
        assert done.failed[0][1].startswith("not a regular file")


class TestDecoding:
    def test_the_middle_is_cut_out_before_the_size(self):
        pixels = np.zeros((218, 178, 3), np.uint8)
        pixels[20:198] = (200, 100, 50)
        content = io.BytesIO()
        Image.fromarray(pixels).save(content, format="PNG")
        # CelebA's 178x218 (width x height): rows 20 to 197 are what is left.
        made = decode.decode(content.getvalue(), Recipe(64, crop=178))
        assert (made == np.array([200, 100, 50])[:, None, None]).all()
        with pytest.raises(ValueError, match="it is 178x218, smaller than the 200x200 to cut out"):
            decode.decode(content.getvalue(), Recipe(64, crop=200))

    def test_sizes_and_places_are_those_of_published_code(self):
        """Resize and CenterCrop of torchvision: the longer side is cut off, half a pixel goes to the even place."""
        random = np.random.RandomState(0)
        # Height, width, of which 16 x 16 is left: of 16 x 21 (not 22) from column 2 on, of 23 x 16 from row 4 on.
        for (height, width), resized, (top, left) in (
            ((37, 50), (16, 21), (0, 2)),
            ((55, 38), (23, 16), (4, 0)),
            ((16, 17), (16, 17), (0, 0)),
            ((19, 16), (19, 16), (2, 0)),
        ):
            image = Image.fromarray(random.randint(0, 256, (height, width, 3), dtype=np.uint8))
            content = io.BytesIO()
            image.save(content, format="PNG")
            whole = np.asarray(image.resize(resized[::-1], Image.Resampling.BILINEAR)).transpose(2, 0, 1)
            made = decode.decode(content.getvalue(), Recipe(16))
            assert (made == whole[:, top : top + 16, left : left + 16]).all()
            published = transforms.Compose([transforms.Resize(16), transforms.CenterCrop(16)])
            assert (made == np.asarray(published(image)).transpose(2, 0, 1)).all()

    def test_stretching_keeps_the_sides(self):
        pixels = np.zeros((4, 12, 3), np.uint8)
        pixels[:, 6:] = 255
        content = io.BytesIO()
        Image.fromarray(pixels).save(content, format="PNG")
        made = decode.decode(content.getvalue(), Recipe(4, stretch=True))
        assert (made[:, :, 0] == 0).all()
        assert (made[:, :, 3] == 255).all()

    def test_gray_is_the_luma_of_the_resized_colours(self, photos):
        content = (photos / "train/cat/0000.jpg").read_bytes()
        colour, gray = (decode.decode(content, Recipe(16), gray) for gray in (False, True))
        expected = builders.luma(colour[None])[0]
        assert (gray == expected).all()
        assert (gray != colour).any()

    def test_processes_give_the_same_pixels_as_one(self, photos):
        one, two = (load_folder(photos, workers) for workers in (1, 3))
        assert one.digest() == two.digest()
        assert one.provenance == two.provenance

    def test_a_process_that_ends_is_told(self, photos, monkeypatch):
        monkeypatch.setattr(decode, "_START", "import sys; sys.exit(3)")
        batch = Batch([(str(photos / "train/cat/0000.jpg"), None, 0, -1)], np.zeros(1, bool), Recipe(16))
        with pytest.raises(RuntimeError, match=r"a process that decodes images ended \(exit code 3\)"):
            list(decode_all([batch], 2))

    def test_a_process_that_decodes_is_light(self):
        code = "import runpy, sys; runpy.run_path(sys.argv[1]); print({'torch', 'fastdd'} & set(sys.modules))"
        done = subprocess.run([sys.executable, "-c", code, decode.__file__], capture_output=True, text=True, check=True)
        assert done.stdout.strip() == "set()"

    def test_levels_are_those_of_the_pixels(self, photos):
        items = [(str(path), None, 0, -1) for path in sorted(photos.glob("train/*/*.jpg"))]
        done = decode.decode_batch(Batch(items, np.zeros(len(items), bool), Recipe(16)))
        mean, std = level_statistics(done.levels)
        pixels = done.images / 255
        np.testing.assert_allclose(mean, pixels.mean((0, 2, 3)), rtol=1e-12)
        np.testing.assert_allclose(std, pixels.std((0, 2, 3)), rtol=1e-12)


def load_folder(root, workers):
    from fastdd.data.sets.folder import folder

    return folder(root, size=16).dataset(workers)


class TestArchives:
    @pytest.mark.parametrize("kind", ["zip", "tar"])
    def test_an_archive_is_a_folder(self, photos, tmp_path, kind):
        path = tmp_path / f"photos.{kind}"
        files = sorted(path for path in photos.rglob("*") if path.is_file())
        if kind == "zip":
            with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
                for file in files:
                    archive.write(file, file.relative_to(photos))
        else:
            with tarfile.open(path, "w") as archive:
                archive.add(photos, ".")
        assert load("folder", path, size=16).digest() == load("folder", photos, size=16).digest()
        tree = Tree(path)
        assert tree.folders() == ["test", "train"]
        assert tree.folders("train") == ["cat", "dog"]
        assert tree.files("train/cat")[:2] == ["0000.jpg", "0001.jpg"]

    def test_a_compressed_tar_archive_is_to_be_unpacked(self, photos, tmp_path):
        with tarfile.open(tmp_path / "photos.tgz", "w:gz") as archive:
            archive.add(photos / "test", "test")
        with pytest.raises(RuntimeError, match=r"photos\.tgz is no zip and no uncompressed tar .* unpack it"):
            load("folder", tmp_path / "photos.tgz")


class TestBuild:
    def test_a_streamed_store_is_the_one_that_is_saved(self, photos, tmp_path):
        seen = []
        built = build("folder", tmp_path / "a", photos, options={"size": 16}, progress=lambda *at: seen.append(at))
        made = load("folder", photos, size=16)
        save_store(made, tmp_path / "b")
        assert same_files(tmp_path / "a", tmp_path / "b")
        assert built.digest() == made.digest()
        assert check_store(tmp_path / "a") == []
        assert sorted(os.listdir(tmp_path)) == ["a", "b"]
        assert (seen[0], seen[-1]) == ((0, 180), (180, 180))
        assert made.provenance["parameters"] == {
            "size": 16,
            "protected": "group",
            "skip_corrupt": False,
            "val_split": 0.0,
        }

    def test_the_digest_of_an_opened_store_is_read_not_computed(self, photos, tmp_path, monkeypatch):
        built = build("folder", tmp_path / "a", photos, options={"size": 16})
        monkeypatch.setattr(type(built), "compute_digest", lambda self: pytest.fail("pixels were read"))
        assert open_store(tmp_path / "a").digest() == built.digest()

    @pytest.mark.parametrize("kill_at", [1, 70, 130, 180])
    def test_killed_and_resumed_is_the_same_store(self, photos, tmp_path, small_steps, kill_at):
        pid = os.fork()
        if pid == 0:
            try:
                kill = lambda done, _: os.kill(os.getpid(), signal.SIGKILL) if done >= kill_at else None  # noqa: E731
                build("folder", tmp_path / "a", photos, options={"size": 16}, workers=1, progress=kill)
            finally:
                os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL
        with pytest.raises(ValueError, match=r"\.a\.building holds an unfinished build: continue it with --resume"):
            build("folder", tmp_path / "a", photos, options={"size": 16})
        first = []
        resumed = {"options": {"size": 16}, "resume": True, "progress": lambda done, _: first.append(done)}
        build("folder", tmp_path / "a", photos, **resumed)
        # What was done is not done again: all but the batch that was under way.
        assert first[0] >= kill_at - 16
        build("folder", tmp_path / "b", photos, options={"size": 16})
        assert same_files(tmp_path / "a", tmp_path / "b")
        assert sorted(os.listdir(tmp_path)) == ["a", "b"]

    def test_what_a_kill_left_half_written_is_cut_off(self, photos, tmp_path, small_steps):
        interrupt(photos, tmp_path / "a", 100)
        building = tmp_path / ".a.building"
        for name in ("store/train-images.npy", "sources.bin"):
            with (building / name).open("ab") as file:
                file.write(b"half an image")
        with (building / "journal.jsonl").open("ab") as file:
            file.write(b'{"rows": {"tra')
        build("folder", tmp_path / "a", photos, options={"size": 16}, resume=True)
        assert open_store(tmp_path / "a").digest() == load("folder", photos, size=16).digest()
        assert check_store(tmp_path / "a") == []

    def test_killed_before_the_store_takes_its_place(self, photos, tmp_path, monkeypatch):
        with monkeypatch.context() as patch:
            patch.setattr(building, "install", lambda *_: (_ for _ in ()).throw(SystemExit))
            with pytest.raises(SystemExit):
                build("folder", tmp_path / "a", photos, options={"size": 16})
        monkeypatch.setattr("fastdd.data.files.plan.decode_all", lambda *_: pytest.fail("images were decoded again"))
        resumed = build("folder", tmp_path / "a", photos, options={"size": 16}, resume=True)
        assert resumed.digest() == resumed.compute_digest()

    def test_one_that_is_done_is_opened(self, photos, tmp_path):
        built = build("folder", tmp_path / "a", photos, options={"size": 16})
        (tmp_path / ".a.building").mkdir()  # as a kill after the last rename leaves it
        assert build("folder", tmp_path / "a", photos, options={"size": 16}, resume=True).digest() == built.digest()
        assert os.listdir(tmp_path) == ["a"]
        with pytest.raises(FileExistsError, match="of other data or other options"):
            build("folder", tmp_path / "a", photos, options={"size": 8}, resume=True)

    def test_what_comes_there_meanwhile_stays(self, photos, tmp_path):
        def meanwhile(done, total):
            (tmp_path / "a").mkdir(exist_ok=True)
            (tmp_path / "a" / "thesis.txt").write_text("x")

        with pytest.raises(
            FileExistsError, match=r"move it away and continue with --resume; \d+ of \d+ images are kept"
        ):
            build("folder", tmp_path / "a", photos, options={"size": 16}, progress=meanwhile)
        (tmp_path / "a").rename(tmp_path / "b")
        build("folder", tmp_path / "a", photos, options={"size": 16}, resume=True)
        assert (tmp_path / "b" / "thesis.txt").exists()
        assert sorted(os.listdir(tmp_path)) == ["a", "b"]

    def test_other_options_do_not_continue_a_build(self, photos, tmp_path, small_steps):
        interrupt(photos, tmp_path / "a", 100)
        with pytest.raises(ValueError, match="holds an unfinished build of folder with other options or files"):
            build("folder", tmp_path / "a", photos, options={"size": 8}, resume=True)
        build("folder", tmp_path / "a", photos, options={"size": 8}, overwrite=True)
        assert open_store(tmp_path / "a").size == (8, 8)

    def test_resume_starts_what_was_never_begun(self, photos, tmp_path):
        build("folder", tmp_path / "a", photos, options={"size": 16}, resume=True)
        assert check_store(tmp_path / "a") == []

    def test_a_disk_that_fills_up_loses_nothing(self, photos, tmp_path, small_steps):
        # Files of at most 60,000 bytes stand in for a full disk: 78 images of 768 bytes.
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, limits[1]))
        try:
            with pytest.raises(OSError, match=r"cannot write .*File too large; 64 of 180 images are kept in ") as error:
                build("folder", tmp_path / "a", photos, options={"size": 16}, workers=1)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert "make room and continue with --resume" in error.value.strerror
        assert not (tmp_path / "a").exists()
        first = []
        again = {"options": {"size": 16}, "resume": True, "progress": lambda done, _: first.append(done)}
        assert build("folder", tmp_path / "a", photos, **again).digest() == load("folder", photos, size=16).digest()
        assert first[0] == 64

    def test_too_little_space_is_told_before_the_start(self, photos, tmp_path, monkeypatch):
        monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 2**16})())
        with pytest.raises(OSError, match=r"has 64\.0 KiB free; the store needs 1\d\d\.\d KiB: make room"):
            build("folder", tmp_path / "a", photos, options={"size": 16})
        with pytest.raises(OSError, match=r"has 64\.0 KiB free; the store needs 1\d\d\.\d KiB: make room"):
            save_store(load("folder", photos, size=16), tmp_path / "b")
        assert os.listdir(tmp_path) == []

    def test_what_was_taken_from_an_unfinished_build_is_told(self, photos, tmp_path, small_steps):
        def stop(done, _):
            if done >= 48:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            build("folder", tmp_path / "a", photos, options={"size": 16}, progress=stop)
        shutil.rmtree(tmp_path / ".a.building" / "store")
        (tmp_path / ".a.building" / "store").mkdir()
        with pytest.raises(RuntimeError, match=r"train-images\.npy is shorter than .* says: start anew with --force"):
            build("folder", tmp_path / "a", photos, options={"size": 16}, resume=True)
        assert not (tmp_path / "a").exists()

    @pytest.mark.parametrize("system", ["that exchanges", "of two renames"])
    @pytest.mark.parametrize(("forced", "gone"), [(True, False), (True, True), (False, True)])
    def test_a_build_in_the_place_of_a_store_is_continued_after_it_took_it(
        self, photos, tmp_path, small_steps, monkeypatch, system, forced, gone
    ):
        if system == "of two renames":
            monkeypatch.setattr("fastdd.core.files.exchange", lambda *_: False)
        old = build("c-digits", tmp_path / "a").digest()
        monkeypatch.setattr(building, "_discard", lambda _: os._exit(3))
        child = os.fork()
        if not child:
            build("folder", tmp_path / "a", photos, options={"size": 16}, overwrite=True, workers=1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 3
        monkeypatch.undo()
        new = load("folder", photos, size=16).digest()
        assert open_store(tmp_path / "a").digest() == new != old
        if gone:
            shutil.rmtree(tmp_path / "a")
        asked = {"options": {"size": 16}, "overwrite": forced, "resume": True}
        assert build("folder", tmp_path / "a", photos, **asked).digest() == new
        assert os.listdir(tmp_path) == ["a"]
        assert check_store(tmp_path / "a") == []

    def test_two_builds_of_one_store_do_not_meet(self, photos, tmp_path):
        def second(done, total):
            with pytest.raises(BlockingIOError, match="another process is running in"):
                build("folder", tmp_path / "a", photos, options={"size": 16}, resume=True)

        build("folder", tmp_path / "a", photos, options={"size": 16}, progress=second)

    def test_memory_does_not_grow_with_the_images(self, tmp_path):
        pixels = np.zeros((64, 64, 3), np.uint8)
        peaks = []
        for count in (150, 450):
            folder = tmp_path / str(count)
            for split in ("train", "test"):
                (folder / split / "one").mkdir(parents=True)
                for number in range(count):
                    (folder / split / "one" / f"{number}.jpg").write_bytes(jpeg(pixels))
            tracemalloc.start()
            build("folder", tmp_path / f"store-{count}", folder, options={"size": 64}, workers=1)
            peaks.append(tracemalloc.get_traced_memory()[1])
            tracemalloc.stop()
        # 900 images are 11 MB; a batch of 64, with what counts its levels, 3. Names and digests: some bytes an image.
        assert peaks[1] < 6e6
        assert peaks[1] - peaks[0] < 600 * 1000

    def test_bad_arguments(self, photos, tmp_path):
        with pytest.raises(ValueError, match="workers must be at least 1, not 0"):
            build("folder", tmp_path / "a", photos, workers=0)
        with pytest.raises(ValueError, match="size must be at least 1 pixel, not 0"):
            build("folder", tmp_path / "a", photos, options={"size": 0})
        build("folder", tmp_path / "a", photos, options={"size": 4})
        with pytest.raises(ValueError, match="is a packed store already"):
            build(str(tmp_path / "a"), tmp_path / "b")
        with pytest.raises(FileExistsError, match="exists: choose another path"):
            build("folder", tmp_path / "a", photos)


def interrupt(photos, path, at):
    """Build a store until ``at`` images are done."""

    def stop(done, _):
        if done >= at:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt, match=r"images are kept in .*; continue with --resume"):
        build("folder", path, photos, options={"size": 16}, workers=1, progress=stop)


class TestCorrupt:
    @pytest.fixture
    def damaged(self, tmp_path):
        folder = photographs(tmp_path / "damaged", 20)
        file = folder / "train/dog/0003.jpg"
        file.write_bytes(file.read_bytes()[:100])
        (folder / "test/cat/0001.jpg").write_bytes(b"nonsense")
        return folder

    @pytest.mark.parametrize("workers", [1, 2])
    def test_it_is_named(self, damaged, tmp_path, workers):
        with pytest.raises(RuntimeError, match=r"cannot decode .*train/dog/0003\.jpg: .*--skip-corrupt"):
            build("folder", tmp_path / "a", damaged, workers=workers)
        # Nothing was kept, so nothing is in the way.
        assert os.listdir(tmp_path) == ["damaged"]

    def test_it_is_left_out_and_listed_when_asked(self, damaged, tmp_path, small_steps):
        options = {"size": 16, "skip_corrupt": True}
        made = load("folder", damaged, **options)
        assert (len(made.train), len(made.test)) == (39, 19)
        assert made.train.labels.tolist() == [0] * 20 + [1] * 19
        skipped = made.provenance["skipped"]
        assert [line.partition(":")[0] for line in skipped] == ["train/dog/0003.jpg", "test/cat/0001.jpg"]
        assert skipped[1].startswith("test/cat/0001.jpg: not an image (PNG, ")
        built = build("folder", tmp_path / "a", damaged, options=options)
        save_store(made, tmp_path / "b")
        assert built.digest() == made.digest()
        assert same_files(tmp_path / "a", tmp_path / "b")
        # The others are those that are there without them.
        for name in ("train/dog/0003.jpg", "test/cat/0001.jpg"):
            (damaged / name).unlink()
        assert load("folder", damaged, size=16).digest() == made.digest()

    def test_it_is_left_out_by_a_resumed_build_too(self, damaged, tmp_path, small_steps):
        options = {"size": 16, "skip_corrupt": True}

        def stop(done, _):
            if done >= 33:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            build("folder", tmp_path / "a", damaged, options=options, workers=1, progress=stop)
        with pytest.raises(ValueError, match="holds a build that left out corrupt images: add --skip-corrupt"):
            build("folder", tmp_path / "a", damaged, options={"size": 16}, resume=True)
        build("folder", tmp_path / "a", damaged, options=options, resume=True)
        save_store(load("folder", damaged, **options), tmp_path / "b")
        assert same_files(tmp_path / "a", tmp_path / "b")

    def test_a_class_of_which_nothing_is_left_is_named(self, damaged):
        for file in (damaged / "train/cat").iterdir():
            file.write_bytes(b"x")
        with pytest.raises(RuntimeError, match="no training images of class cat are left after 22 corrupt ones"):
            load("folder", damaged, skip_corrupt=True)


def test_cells_are_cut_down_to_the_smallest_that_has_any():
    labels = np.repeat([0, 1], [50, 30])
    groups = np.r_[np.repeat([0, 1], [40, 10]), np.repeat(0, 30)]
    rows = even_cells(labels, groups, np.random.RandomState(0))
    assert np.bincount(labels[rows] * 2 + groups[rows]).tolist() == [10, 10, 10]
    assert (np.diff(rows) > 0).all()
    assert len(even_cells(labels, groups, np.random.RandomState(0), most=4)) == 12


def test_dropping_leaves_no_class_without_images():
    labels = np.repeat([0, 1], 10)
    groups = np.r_[np.zeros(10, np.int64), np.repeat([0, 1], 5)]
    with pytest.raises(ValueError, match=r"class 0 has images of group 0 only, and a share of 0\.9 would leave none"):
        drop_to_ratio(labels, groups, 0.9, np.random.RandomState(0))
    assert np.bincount(labels[drop_to_ratio(labels, groups, 1.0, np.random.RandomState(0))]).tolist() == [10, 5]


@pytest.mark.parametrize("ratio", [0.0, 0.5, 0.95, 0.999, 1.0])
def test_dropping_reaches_the_ratio(ratio):
    random = np.random.RandomState(1)
    labels = random.randint(0, 2, 20_000)
    # Group 1 is rarer everywhere, and rarest in class 0: the aligned groups are 0 and 1.
    groups = (random.rand(20_000) < np.where(labels == 0, 0.2, 0.4)).astype(np.int64)
    rows = drop_to_ratio(labels, groups, ratio, np.random.RandomState(0))
    assert (np.diff(rows) > 0).all()
    for label in (0, 1):
        own = groups[rows][labels[rows] == label] == label
        assert abs(own.mean() - ratio) < 1e-3
        # No more is dropped than must be: one of the two sides is whole.
        before = groups[labels == label] == label
        assert own.sum() == before.sum() or (~own).sum() == (~before).sum()
