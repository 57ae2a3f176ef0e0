"""Readers: the publishers' layouts, and one clear line for each way a file can be wrong."""

import gzip
import pickle
import shutil
import struct
import tarfile

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fastdd.data import load
from fastdd.data.files import readers


@given(hnp.arrays(np.uint8, hnp.array_shapes(min_dims=1, max_dims=4, min_side=0, max_side=5)))
def test_idx_gives_back_what_was_written(array):
    content = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes()
    np.testing.assert_array_equal(readers.parse_idx(content, "x"), array)


@given(st.binary(max_size=64))
def test_idx_of_any_bytes_is_an_array_or_one_line_naming_the_file(content):
    try:
        array = readers.parse_idx(content, "some.idx")
    except RuntimeError as error:
        line = str(error)
    else:
        line = "some.idx is sound"
        assert content == struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes()
    assert line.startswith("some.idx is ")
    assert "\n" not in line


@pytest.mark.parametrize("below", ["mnist", "MNIST/raw", "."])
@pytest.mark.parametrize("packed", [True, False])
def test_mnist_is_found_in_its_usual_folders(mnist_root, mnist_arrays, tmp_path_factory, below, packed):
    root = tmp_path_factory.mktemp("root")
    (root / below).mkdir(parents=True, exist_ok=True)
    for name in mnist_arrays:
        content = (mnist_root / "mnist" / f"{name}.gz").read_bytes()
        (root / below / (f"{name}.gz" if packed else name)).write_bytes(content if packed else gzip.decompress(content))
    data = load("mnist", root)
    assert data.train.images.shape == (240, 1, 28, 28)
    np.testing.assert_array_equal(data.train.images[:, 0], mnist_arrays["train-images-idx3-ubyte"])
    np.testing.assert_array_equal(data.test.labels, mnist_arrays["t10k-labels-idx1-ubyte"])
    assert not data.train.groups.any()
    assert data.group_names == ("all",)
    assert (data.mean, data.std) == ((0.1307,), (0.3081,))
    known = {"file", "bytes", "sha256", *(["as_published"] if packed else [])}
    assert [set(file) for file in data.provenance["files"]] == [known] * 4


def test_no_root_asks_for_one_and_names_files_and_page():
    with pytest.raises(FileNotFoundError, match=r"--data-root.*yann\.lecun\.com/exdb/mnist") as error:
        load("mnist")
    assert "train-images-idx3-ubyte.gz" in str(error.value)
    with pytest.raises(FileNotFoundError, match=r"github\.com/zalandoresearch/fashion-mnist"):
        load("c-fmnist-bg")
    with pytest.raises(FileNotFoundError, match=r"cifar-10-batches-bin.*cs\.toronto\.edu/~kriz/cifar\.html"):
        load("cifar10-s")


def test_a_root_without_the_files_names_files_folders_and_page(tmp_path):
    with pytest.raises(FileNotFoundError) as error:
        load("mnist", tmp_path)
    for text in ("t10k-labels-idx1-ubyte.gz", str(tmp_path / "MNIST/raw"), "yann.lecun.com"):
        assert text in str(error.value)
    with pytest.raises(FileNotFoundError) as error:
        load("cifar10", tmp_path)
    for text in ("test_batch.bin", "cifar-10-python.tar.gz", str(tmp_path / "cifar10"), "cs.toronto.edu"):
        assert text in str(error.value)


def test_a_root_that_is_no_folder_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere is not a folder"):
        load("mnist", tmp_path / "nowhere")


def test_a_truncated_gzip_is_named(mnist_root):
    file = mnist_root / "mnist" / "t10k-images-idx3-ubyte.gz"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(RuntimeError, match=r"mnist/t10k-images-idx3-ubyte\.gz is truncated or damaged .* get it again"):
        load("mnist", mnist_root)


def test_what_is_not_gzip_is_named(mnist_root):
    (mnist_root / "mnist" / "t10k-images-idx3-ubyte.gz").write_bytes(b"<html>moved</html>")
    with pytest.raises(RuntimeError, match=r"t10k-images-idx3-ubyte\.gz is truncated or damaged"):
        load("mnist", mnist_root)


def write_labels(root, content):
    (root / "mnist" / "train-labels-idx1-ubyte.gz").write_bytes(gzip.compress(content))


def test_another_magic_number_is_named(mnist_root):
    write_labels(mnist_root, bytes([0, 0, 13, 1, 0, 0, 0, 1, 0]))
    with pytest.raises(RuntimeError, match=r"train-labels.*is not an IDX file of unsigned bytes.*0x00000d01"):
        load("mnist", mnist_root)


def test_fewer_bytes_than_the_header_says_are_named(mnist_root):
    write_labels(mnist_root, bytes([0, 0, 8, 1, 0, 0, 0, 240, 1, 2]))
    with pytest.raises(RuntimeError, match=r"train-labels.*is damaged: 10 bytes, its header asks for 248"):
        load("mnist", mnist_root)


def test_images_and_labels_must_be_as_many(mnist_root):
    write_labels(mnist_root, bytes([0, 0, 8, 1, 0, 0, 0, 2, 1, 2]))
    with pytest.raises(RuntimeError, match=r"has 240 images, but .* has 2 labels"):
        load("c-mnist-fg", mnist_root)


def test_a_label_above_nine_is_named(mnist_root):
    labels = bytearray(i % 10 for i in range(240))
    labels[7] = 12
    write_labels(mnist_root, bytes([0, 0, 8, 1, 0, 0, 0, 240]) + labels)
    with pytest.raises(RuntimeError, match=r"train-labels.*: label 12 at row 7 is outside 0\.\.9"):
        load("c-mnist-fg", mnist_root)


def test_swapped_files_are_named(mnist_root):
    folder = mnist_root / "mnist"
    shutil.copy(folder / "train-labels-idx1-ubyte.gz", folder / "train-images-idx3-ubyte.gz")
    with pytest.raises(RuntimeError, match=r"train-images.*its shape is \[240\], not \[240, 28, 28\]"):
        load("mnist", mnist_root)


def test_another_set_under_the_same_file_names_is_told(tmp_path, mnist_arrays):
    # As many images as published, and as many of each class as Fashion-MNIST has.
    arrays = mnist_arrays | {
        "train-images-idx3-ubyte": np.zeros((60000, 28, 28), np.uint8),
        "train-labels-idx1-ubyte": (np.arange(60000) % 10).astype(np.uint8),
    }
    for name, array in arrays.items():
        header = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
        (tmp_path / name).write_bytes(header + array.tobytes())
    assert len(load("fashion-mnist", tmp_path).train) == 60000
    with pytest.raises(RuntimeError, match=r"is not MNIST's: images per class are \(6000, .*published \(5923, 6742"):
        load("mnist", tmp_path)


@pytest.mark.realdata
def test_mnist_files_are_not_taken_for_fashion_mnist(data_root):
    with pytest.raises(RuntimeError, match="is not Fashion-MNIST's: images per class are"):
        load("fashion-mnist", data_root / "mnist")


@pytest.mark.parametrize("form", ["bin-folder", "py-folder", "bin-archive", "py-archive"])
def test_cifar10_is_read_in_the_publishers_four_forms(write_cifar, cifar_batches, form):
    data = load("cifar10", write_cifar(form))
    expected = np.concatenate([cifar_batches[f"data_batch_{i}"][0] for i in range(1, 6)]).reshape(-1, 3, 32, 32)
    np.testing.assert_array_equal(data.train.images, expected)
    np.testing.assert_array_equal(data.train.labels, np.arange(100) % 10)
    np.testing.assert_array_equal(data.test.images, cifar_batches["test_batch"][0].reshape(-1, 3, 32, 32))
    assert data.class_names[9] == "truck"
    assert len(data.provenance["files"]) == (1 if "archive" in form else 6)


@pytest.mark.parametrize("below", ["", "cifar10", "cifar10/cifar-10-batches-bin"])
def test_cifar10_is_found_from_the_root_down_to_its_folder(cifar_root, below):
    assert len(load("cifar10", cifar_root / below).train) == 100


def test_the_new_module_path_of_numpy_is_read(write_cifar):
    # Written here by numpy 2 or by numpy 1; the other's path must do too.
    root = write_cifar("py-folder")
    batch = root / "cifar-10-batches-py" / "test_batch"
    content = batch.read_bytes()
    paths = (b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n")
    old, new = paths if paths[0] in content else paths[::-1]
    assert old in content
    expected = load("cifar10", root).digest()
    batch.write_bytes(content.replace(old, new))
    assert load("cifar10", root).digest() == expected


def test_a_batch_as_python_2_pickled_it_is_read(cifar_batches):
    # The publisher's own form: Python 2's byte strings (opcodes U and T) and numpy 1's module path.
    data, labels = cifar_batches["test_batch"]

    def short(text: str) -> bytes:
        return b"U" + bytes([len(text)]) + text.encode()

    def number(value: int) -> bytes:
        return b"J" + struct.pack("<i", value)

    dtype = b"cnumpy\ndtype\n(" + short("u1") + number(0) + number(1) + b"tR"
    dtype += b"(" + number(3) + short("|") + b"NNN" + number(-1) + number(-1) + number(0) + b"tb"
    array = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(" + number(0) + b"t" + short("b") + b"tR"
    array += b"(" + number(1) + b"(" + number(20) + number(3072) + b"t" + dtype
    array += b"I00\nT" + struct.pack("<i", data.nbytes) + data.tobytes() + b"tb"
    listed = b"(" + b"".join(map(number, labels)) + b"l"
    content = b"\x80\x02}(" + short("data") + array + short("labels") + listed + b"u."
    images, read = readers.parse_cifar_python(content, "x")
    np.testing.assert_array_equal(images.reshape(20, -1), data)
    assert read.tolist() == labels


def test_an_array_in_fortran_order_is_read_the_right_way_round(cifar_batches):
    data, labels = cifar_batches["test_batch"]
    content = pickle.dumps({"data": np.asfortranarray(data), "labels": labels}, protocol=2)
    np.testing.assert_array_equal(readers.parse_cifar_python(content, "x")[0].reshape(20, -1), data)


class _Malicious:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


def test_a_pickle_that_would_run_code_is_refused_and_runs_nothing(write_cifar):
    root = write_cifar("py-folder")
    (root / "cifar-10-batches-py" / "data_batch_2").write_bytes(pickle.dumps(_Malicious(root / "owned"), protocol=2))
    with pytest.raises(RuntimeError, match=r"data_batch_2 is not a CIFAR-10 batch: it asks for .*open"):
        load("cifar10", root)
    assert not (root / "owned").exists()


@pytest.mark.parametrize(
    "batch",
    [
        [1, 2],
        {"data": np.zeros((2, 3072), np.float32), "labels": [0, 1]},
        {"data": np.zeros((2, 3071), np.uint8), "labels": [0, 1]},
        {"data": np.zeros((2, 3072), np.uint8), "labels": [0]},
        {"data": np.zeros((2, 3072), np.uint8), "labels": [0, "1"]},
        {"data": np.array([{}, {}], object), "labels": [0, 1]},
        {"data": np.zeros((2, 3072), np.uint8)},
    ],
)
def test_a_pickle_of_something_else_is_named(batch):
    with pytest.raises(RuntimeError, match="some_batch is not a CIFAR-10 batch"):
        readers.parse_cifar_python(pickle.dumps(batch, protocol=2), "some_batch")


@given(st.binary(max_size=80))
def test_a_batch_of_any_bytes_is_one_line_naming_the_file(content):
    with pytest.raises(RuntimeError, match=r"^some_batch is not a CIFAR-10 batch"):
        readers.parse_cifar_python(content, "some_batch")


@pytest.mark.parametrize("content", [b"", b"x" * 3074])
def test_a_binary_batch_of_another_size_is_named(cifar_root, content):
    (cifar_root / "cifar10/cifar-10-batches-bin/data_batch_3.bin").write_bytes(content)
    with pytest.raises(RuntimeError, match=rf"data_batch_3\.bin is damaged: {len(content)} bytes"):
        load("cifar10", cifar_root)


def test_a_cifar_label_above_nine_is_named(cifar_root):
    (cifar_root / "cifar10/cifar-10-batches-bin/test_batch.bin").write_bytes(bytes(3073) + b"\x0b" + bytes(3072))
    with pytest.raises(RuntimeError, match=r"test_batch\.bin: label 11 of image 1 is outside 0\.\.9"):
        load("cifar10", cifar_root)


def test_a_truncated_archive_is_named(write_cifar):
    root = write_cifar("bin-archive")
    archive = root / "cifar-10-binary.tar.gz"
    archive.write_bytes(archive.read_bytes()[:-2000])
    with pytest.raises(RuntimeError, match=r"cifar-10-binary\.tar\.gz is truncated or damaged"):
        load("cifar10", root)


def test_an_archive_that_lacks_a_batch_is_named(tmp_path):
    tarfile.open(tmp_path / "cifar-10-python.tar.gz", "w:gz").close()
    with pytest.raises(RuntimeError, match=r"cifar-10-python\.tar\.gz lacks data_batch_1, .*test_batch"):
        load("cifar10", tmp_path)


@pytest.mark.realdata
def test_the_binary_and_the_python_version_of_cifar10_agree(data_root):
    binary = readers.read_cifar10(data_root / "cifar10/cifar-10-batches-bin")
    python = readers.read_cifar10(data_root / "cifar10/cifar-10-batches-py")
    for field in ("train_images", "train_labels", "test_images", "test_labels"):
        np.testing.assert_array_equal(getattr(binary, field), getattr(python, field))


@pytest.mark.realdata
def test_the_publishers_files_are_told_by_their_md5(data_root):
    for publisher in (readers.MNIST, readers.FASHION_MNIST):
        files = readers.read_mnist_files(data_root, publisher).files
        assert [file["as_published"] for file in files] == [True] * 4


def test_other_files_of_the_same_names_are_told(mnist_root, write_cifar):
    files = readers.read_mnist_files(mnist_root, readers.MNIST).files
    assert [file["as_published"] for file in files] == [False] * 4
    (archive,) = readers.read_cifar10(write_cifar("py-archive")).files
    assert not archive["as_published"]


def test_of_unpacked_files_no_md5_is_known(mnist_arrays, tmp_path):
    for name, array in mnist_arrays.items():
        header = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
        (tmp_path / name).write_bytes(header + array.tobytes())
    files = readers.read_mnist_files(tmp_path, readers.MNIST).files
    assert all("as_published" not in file for file in files)


def write_cifar100(folder, names=("apple", "bear")):
    folder.mkdir(parents=True)
    pixels = np.arange(4 * 3072, dtype=np.uint8).reshape(4, 3072)
    for split in ("train", "test"):
        fields = {b"data": pixels, b"fine_labels": [0, 1, 1, 0], b"coarse_labels": [0, 0, 0, 0]}
        (folder / split).write_bytes(pickle.dumps(fields, protocol=2))
    (folder / "meta").write_bytes(pickle.dumps({"fine_label_names": [*names]}, protocol=2))
    return pixels.reshape(4, 3, 32, 32)


def test_cifar100_unpacked_or_in_its_archive(tmp_path):
    folder = tmp_path / "cifar-100-python"
    pixels = write_cifar100(folder)
    packed = tmp_path / "packed" / "cifar100"
    packed.mkdir(parents=True)
    with tarfile.open(packed / "cifar-100-python.tar.gz", "w:gz") as tar:
        tar.add(folder, "cifar-100-python")
    for root in (tmp_path, folder, tmp_path / "packed"):
        source, names = readers.read_cifar100(root)
        assert names == ("apple", "bear")
        for images, labels in (
            (source.train_images, source.train_labels),
            (source.test_images, source.test_labels),
        ):
            np.testing.assert_array_equal(images, pixels)
            assert images.flags.writeable
            assert labels.tolist() == [0, 1, 1, 0]
    assert source.files[0]["as_published"] is False
    made = load("cifar100", tmp_path)
    assert (made.name, made.class_names, made.mean) == ("cifar100", names, (0.5071, 0.4866, 0.4409))


def test_cifar100s_damages_are_named(tmp_path):
    folder = tmp_path / "cifar-100-python"
    write_cifar100(folder, names=("apple",))
    with pytest.raises(RuntimeError, match=r"train: label 1 of image 1 is outside 0..0"):
        readers.read_cifar100(tmp_path)
    (folder / "train").write_bytes(b"\x80\x02cos\nsystem\nq\x00.")
    with pytest.raises(RuntimeError, match=r"train is not a CIFAR-100 batch: it asks for os.system"):
        readers.read_cifar100(tmp_path)
    (folder / "meta").write_bytes(pickle.dumps([1], protocol=2))
    with pytest.raises(RuntimeError, match=r"meta has no fine_label_names"):
        readers.read_cifar100(tmp_path)
    (folder / "meta").unlink()
    with pytest.raises(FileNotFoundError, match="cifar-100-python"):
        readers.read_cifar100(tmp_path)


def test_svhns_zeros_are_labelled_0(tmp_path):
    from scipy.io import savemat

    pixels = np.arange(32 * 32 * 3 * 3, dtype=np.uint8).reshape(32, 32, 3, 3)
    for name in ("train", "test"):
        savemat(tmp_path / f"{name}_32x32.mat", {"X": pixels, "y": np.array([[10], [1], [9]], np.uint8)})
    source = readers.read_svhn(tmp_path)
    np.testing.assert_array_equal(source.train_images[1], pixels[..., 1].transpose(2, 0, 1))
    assert source.test_labels.tolist() == [0, 1, 9]
    made = load("svhn", tmp_path)
    assert (made.name, made.num_classes, made.std) == ("svhn", 10, (0.1980, 0.2010, 0.1970))
    savemat(tmp_path / "test_32x32.mat", {"X": pixels[:5], "y": np.array([[10]])})
    with pytest.raises(RuntimeError, match=r"test_32x32.mat is not SVHN's: it needs X"):
        readers.read_svhn(tmp_path)
    (tmp_path / "test_32x32.mat").write_bytes(b"no matrices")
    with pytest.raises(RuntimeError, match=r"test_32x32.mat is not a MATLAB file"):
        readers.read_svhn(tmp_path)
    (tmp_path / "test_32x32.mat").unlink()
    with pytest.raises(FileNotFoundError, match=r"train_32x32.mat and test_32x32.mat not found"):
        readers.read_svhn(tmp_path)
