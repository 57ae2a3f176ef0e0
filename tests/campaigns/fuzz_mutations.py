"""Damage to files: of bytes, and of what a file's format says; every mutation is a function of a random generator."""

import copy
import gzip
import io
import json
import pickle
import random
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
import yaml

_NUMBERS = (b"-1", b"0", b"3.5", b"1e999", b"-1e-300", b"nan", b"99999999999999999999", b"2147483648", b"1" * 400, b"")
_BYTES = (b"\0", b"\xff" * 4, b"\xff" * 8, b"\x7f\xff\xff\xff", b"\0" * 8, b"\x80", b"\x01\0\0\0", b"\n", b'"', b"\r\n")


def _deep(kind: type, depth: int = 3000) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value] if kind is list else {"a": value}
    return value


def odd_value(chance: random.Random) -> Any:
    """A value that a reader may not expect, of JSON's kinds."""
    return chance.choice(
        [
            *(
                None,
                True,
                False,
                0,
                -1,
                5,
                3.5,
                1e308,
                -1e308,
                1e-300,
                10**40,
                2**31,
                2**63,
                float("nan"),
                float("inf"),
            ),
            *("", "x" * 5000, "\x1b[31m\x00", "../../x", "\ud800", "none", "1", "a$b^{c", "\n\n", "nan"),
            *([], {}, [None], [1, 2], [[1]], {"a": 1}, [True], ["x"] * 3, [1e300], list(range(2000))),
            _deep(chance.choice([list, dict]), chance.choice([50, 3000])),
        ]
    )


def _places(value: Any, path: tuple = ()) -> Iterator[tuple]:
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list | tuple) else ()
    for key, part in list(items)[:200]:
        yield from _places(part, (*path, key))


def _at(value: Any, path: tuple) -> Any:
    for key in path:
        value = value[key]
    return value


def tree(chance: random.Random, value: Any, leaf: Callable[[random.Random, Any], Any] | None = None) -> Any:
    """A copy of nested values of which one is replaced, left out, doubled, renamed, or exchanged for another one."""
    value = copy.deepcopy(value)
    places = list(_places(value))
    path = chance.choice(places)
    if not path:
        return odd_value(chance) if chance.random() < 0.3 or len(places) == 1 else tree(chance, value, leaf)
    above, key = _at(value, path[:-1]), path[-1]
    if isinstance(above, tuple):
        return tree(chance, _untupled(value), leaf)
    if leaf is not None and isinstance(above[key], torch.Tensor | np.ndarray) and chance.random() < 0.8:
        above[key] = leaf(chance, above[key])
        return value
    how = chance.randrange(6)
    if how <= 2:
        above[key] = odd_value(chance)
    elif how == 3:
        del above[key]
    elif how == 4:
        above[key] = copy.deepcopy(_at(value, chance.choice(places[1:])))
    elif isinstance(above, dict):
        above[chance.choice(["", "x", "\x1b", "a" * 300, 5, None])] = above.pop(key)
    else:
        above.extend(copy.deepcopy(above))
    return value


def _untupled(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_untupled(part) for part in value]
    return {key: _untupled(part) for key, part in value.items()} if isinstance(value, dict) else value


def tensor(chance: random.Random, given: Any) -> Any:
    """Another tensor (or array): another type, shape or layout, or values that no reader should take as they are."""
    if isinstance(given, np.ndarray):
        try:
            return tensor(chance, torch.from_numpy(given.copy())).numpy()
        except (TypeError, RuntimeError):
            return chance.choice([given.astype(object), given.astype("S1"), given.astype("U"), given.ravel()])
    given, how = given.detach(), chance.randrange(12)
    if how == 0:
        dtypes = [torch.float64, torch.float16, torch.bfloat16, torch.int8, torch.uint8, torch.bool, torch.int64]
        return given.nan_to_num(0).to(chance.choice([*dtypes, torch.complex64]))
    if how == 1:
        return chance.choice(
            [given[None], given.flatten(), given[:0], given[..., :1], given.mT if given.ndim > 1 else given]
        )
    if how == 2:
        return given.new_zeros(chance.choice([(0,), (), (1, 0, 3), (2, 3, 8, 8), (5,)]))
    if how == 3:
        return given.expand(chance.choice([1000, 10**6]), *given.shape)
    if how == 4:
        return chance.choice(
            [given.to_sparse(), given.float().requires_grad_(), torch.empty(given.shape, device="meta")]
        )
    if how == 5:
        return -given if given.dtype != torch.bool else given
    values = [float("nan"), float("inf"), 1e38, -1e38, 1e-40, 0.0, 1e6, 10**6, 2**31 - 1, -1, 255, 3.5]
    value, changed = chance.choice(values), given.clone()
    if not changed.is_floating_point() and not abs(value) < 2**63:
        value = 2**31 - 1
    if changed.dtype in (torch.bool, torch.uint8):
        value = int(min(abs(value), 1)) if value == value else 0
    flat = changed.view(-1) if changed.is_contiguous() else changed.contiguous().view(-1)
    if how <= 8 or not len(flat):
        return torch.full_like(changed, value)
    flat[chance.randrange(len(flat))] = value
    return flat.view(given.shape)


def of_bytes(chance: random.Random, content: bytes, other: bytes = b"") -> bytes:
    """Bytes flipped, cut, inserted, doubled or overwritten, figures replaced, or another file spliced in."""
    data = bytearray(content)
    for _ in range(chance.choice([1, 1, 1, 2, 4])):
        at, how = chance.randrange(len(data) + 1), chance.randrange(9)
        if how == 0 and data:
            data[at % len(data)] ^= 1 << chance.randrange(8)
        elif how == 1:
            del data[at:]
        elif how == 2:
            del data[at : at + chance.choice([1, 2, 8, 100])]
        elif how == 3:
            data[at:at] = chance.choice([*_BYTES, *_NUMBERS])
        elif how == 4:
            data[at : at + chance.choice([1, 4])] = chance.randbytes(chance.choice([1, 4, 16]))
        elif how == 5:
            part = chance.choice(_BYTES)
            data[at : at + len(part)] = part
        elif how == 6:
            data[at:at] = data[at : at + chance.choice([4, 64, 1000])]
        elif how == 7 and other:
            data[at:] = other[chance.randrange(len(other)) :]
        else:
            _number(chance, data)
        # The first bytes say what a file is, and how large: as likely as all others together.
        if chance.random() < 0.3 and data:
            data[chance.randrange(min(len(data), 64))] = chance.randrange(256)
    return bytes(data)


def _number(chance: random.Random, data: bytearray) -> None:
    """Replace a run of figures."""
    start = chance.randrange(len(data) + 1)
    for first in range(start, min(len(data), start + 2000)):
        if data[first : first + 1].isdigit():
            last = first
            while data[last : last + 1].isdigit():
                last += 1
            data[first:last] = chance.choice(_NUMBERS)
            return


def _json(chance: random.Random, content: bytes) -> bytes:
    return json.dumps(tree(chance, json.loads(content))).encode()


def _jsonl(chance: random.Random, content: bytes) -> bytes:
    rows = tree(chance, [json.loads(line) for line in content.splitlines()])
    rows = rows if isinstance(rows, list) else [rows]
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def _yaml(chance: random.Random, content: bytes) -> bytes:
    value = tree(chance, yaml.safe_load(content))
    extra = chance.choice([b"", b"", b"", b"&a [*a]\n", b"x: !!python/object:os.system {}\n", b"? [1]\n: 2\n"])
    return yaml.dump(value, Dumper=yaml.SafeDumper).encode("utf-8", "surrogatepass") + extra


def _lines(chance: random.Random, content: bytes) -> bytes:
    """Lines of a table doubled, left out, exchanged, or with another field."""
    lines = content.splitlines(keepends=True) or [b""]
    at, how = chance.randrange(len(lines)), chance.randrange(5)
    if how == 0:
        del lines[at]
    elif how == 1:
        lines.insert(at, lines[at])
    elif how == 2:
        lines.insert(0, lines.pop(at))
    else:
        mark = next((mark for mark in (b",", b"\t", b" ") if mark in lines[at]), b" ")
        fields = lines[at].rstrip(b"\n").split(mark)
        odd = [*_NUMBERS, b"x" * 140_000, b'"', b"\xe9", b"../x", b"\x1b[1m", "é".encode(), b"a\0b", b"-1", b"1"]
        fields[chance.randrange(len(fields))] = chance.choice(odd)
        lines[at] = mark.join(fields) + b"\n"
    return b"".join(lines)


def _safetensors(chance: random.Random, content: bytes) -> bytes:
    size = int.from_bytes(content[:8], "little")
    header, data = json.loads(content[8 : 8 + size]), content[8 + size :]
    about = header.get("__metadata__") or {}
    if about and chance.random() < 0.6:
        name = chance.choice(list(about))
        about[name] = json.dumps(tree(chance, json.loads(about[name])))
    elif chance.random() < 0.5:
        header = tree(chance, header)
    else:
        from safetensors.torch import load, save

        tensors = {name: (value, tensor(chance, value)) for name, value in load(content).items()}
        chosen = chance.choice(list(tensors))
        kept = {name: pair[name == chosen].detach().contiguous().clone() for name, pair in tensors.items()}
        return save(kept, metadata=about)
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def _npy(chance: random.Random, content: bytes) -> bytes:
    buffer = io.BytesIO()
    if chance.random() < 0.4:
        odd = tensor(chance, np.load(io.BytesIO(content)))
        np.save(buffer, odd, allow_pickle=True)
        return buffer.getvalue()
    at = content.index(b"\n") + 1
    shapes = ["(9999999999999,)", "(-1,)", "(2**40,)", "(3.5,)", "()", "(1,)*99", "None", "(4, 0)", "(" * 300, "'x'"]
    kinds = ["'<f8'", "'|O'", "'<i8'", "'|S0'", "'<U9999999'", "[('a', '<f4')]", "'<M8[ns]'", "5", "'|V8'", "'>c16'"]
    text = f"{{'descr': {chance.choice(kinds)}, 'fortran_order': {chance.choice(['False', 'True', '5'])}, "
    text = (text + f"'shape': {chance.choice(shapes)}, }}\n").encode()
    return content[:8] + struct.pack("<H", len(text)) + text + content[at:]


def _torch(chance: random.Random, content: bytes) -> bytes:
    buffer = io.BytesIO()
    value = torch.load(io.BytesIO(content), weights_only=False)
    torch.save(tree(chance, [value], tensor)[0:1][0] if chance.random() < 0.9 else tensor_or(chance, value), buffer)
    return buffer.getvalue()


def tensor_or(chance: random.Random, value: Any) -> Any:
    """Another tensor for a tensor, and for anything else nested values of which one is changed."""
    return tensor(chance, value) if isinstance(value, torch.Tensor) else tree(chance, value, tensor)


def _pickle(chance: random.Random, content: bytes) -> bytes:
    value = tree(chance, pickle.loads(content, encoding="bytes"), tensor)
    return pickle.dumps(value, protocol=chance.choice([2, 4]))


def _gzip(chance: random.Random, content: bytes) -> bytes:
    raw = gzip.decompress(content)
    return gzip.compress(of_bytes(chance, raw) if chance.random() < 0.98 else raw + b"\0" * (100 << 20), 1)


def _zip(chance: random.Random, content: bytes) -> bytes:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = {entry.filename: archive.read(entry) for entry in archive.infolist()}
    chosen, buffer = chance.choice(list(members)), io.BytesIO()
    with zipfile.ZipFile(buffer, "w", chance.choice([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])) as archive:
        for name, data in members.items():
            name = chance.choice(odd_names(name)) if name == chosen and chance.random() < 0.3 else name
            archive.writestr(name[:60000] or "x", of_structure(chance, name, data) if name == chosen else data)
    return buffer.getvalue()


def _tar(chance: random.Random, content: bytes) -> bytes:
    buffer, packed = io.BytesIO(), content[:2] == b"\x1f\x8b"
    with (
        tarfile.open(fileobj=io.BytesIO(content)) as source,
        tarfile.open(fileobj=buffer, mode="w:gz" if packed else "w", compresslevel=1)
        if packed
        else tarfile.open(fileobj=buffer, mode="w") as sink,
    ):
        entries = source.getmembers()
        chosen = chance.randrange(len(entries))
        for number, entry in enumerate(entries):
            data = source.extractfile(entry).read() if entry.isfile() else b""
            if number == chosen:
                how = chance.randrange(4)
                if how == 0:
                    entry.name = chance.choice(odd_names(entry.name))
                elif how == 1:
                    entry.type, entry.linkname = chance.choice([b"1", b"2", b"3", b"6", b"5", b"S"]), "../x"
                    data = b""
                else:
                    data = of_structure(chance, entry.name, data)
                entry.size = len(data)
            sink.addfile(entry, io.BytesIO(data))
    return buffer.getvalue()


def _png(chance: random.Random, content: bytes) -> bytes:
    """A PNG with a chunk changed whose checksum is right again."""
    at, chunks = 8, []
    while at + 12 <= len(content):
        size = int.from_bytes(content[at : at + 4], "big")
        chunks.append((content[at + 4 : at + 8], content[at + 8 : at + 8 + size]))
        at += 12 + size
    chosen = chance.randrange(len(chunks))
    kind, data = chunks[chosen]
    if kind == b"IHDR" and chance.random() < 0.5:
        sides = [chance.choice([0, 1, 8, 20_000, 60_000, 2**31 - 1, 2**32 - 1]) for _ in range(2)]
        data = struct.pack(">II", *sides) + data[8:]
    elif kind == b"IDAT" and chance.random() < 0.5:
        data = zlib.compress(zlib.decompress(data) + b"\0" * (100 << 20 if chance.random() < 0.05 else 100), 1)
    else:
        data = of_bytes(chance, data)
    chunks[chosen] = (chance.choice([kind, kind, kind, b"iTXt", b"zTXt", b"iCCP", b"acTL", b"fdAT", b"tRNS"]), data)
    made = (struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in chunks)
    return content[:8] + b"".join(made)


def odd_names(name: str) -> list[str]:
    """Names of files that a reader may stumble over; surrogates stand for bytes that are no UTF-8."""
    stem, dot, suffix = name.rpartition("/")[2].rpartition(".")
    below = name[: len(name) - len(name.rpartition("/")[2])]
    names = (
        f"{stem}\udce9",
        f"\x1b[31m{stem}",
        f"{stem}\n",
        "n" * 200,
        f"..{stem}",
        f" {stem} ",
        "é",
        "-",
        "a$b",
        ".x",
    )
    return [f"{below}{odd}{dot}{suffix}" for odd in names]


_OF_SUFFIX = {
    **dict.fromkeys((".json",), _json),
    **dict.fromkeys((".jsonl",), _jsonl),
    **dict.fromkeys((".yaml", ".yml"), _yaml),
    **dict.fromkeys((".csv", ".txt"), _lines),
    **dict.fromkeys((".pt", ".pth"), _torch),
    **dict.fromkeys((".zip", ".npz"), _zip),
    **dict.fromkeys((".tar", ".tar.gz"), _tar),
    ".safetensors": _safetensors,
    ".npy": _npy,
    ".gz": _gzip,
    ".png": _png,
}
_PICKLES = ("data_batch_1", "data_batch_2", "test_batch", "meta", "train", "test")


def of_structure(chance: random.Random, name: str, content: bytes) -> bytes:
    """A change that the file's format knows of; of bytes where it has none, or is no longer what its name says."""
    suffix = next((suffix for suffix in sorted(_OF_SUFFIX, key=len, reverse=True) if name.endswith(suffix)), None)
    change = _OF_SUFFIX.get(suffix) or (_pickle if name.rpartition("/")[2] in _PICKLES else None)
    if change is None or chance.random() < 0.15:
        return of_bytes(chance, content)
    try:
        return change(chance, content)
    except Exception:  # already changed before, into what its own parser does not take
        return of_bytes(chance, content)
