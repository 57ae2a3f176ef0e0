"""Checks of files."""

import hashlib
import os


def calculate_md5(fpath: str, chunk_size: int = 1024 * 1024) -> str:
    """MD5 of a file, in hex."""
    md5 = hashlib.md5(usedforsecurity=False)
    with open(fpath, "rb") as file:
        while block := file.read(chunk_size):
            md5.update(block)
    return md5.hexdigest()


def check_md5(fpath: str, md5: str) -> bool:
    """Whether a file has this MD5."""
    return calculate_md5(fpath) == md5


def check_integrity(fpath: str, md5: str | None = None) -> bool:
    """Whether a file is there and, if ``md5`` is given, has it."""
    return os.path.isfile(fpath) and (md5 is None or check_md5(fpath, md5))
