"""Finds one file of an image in its layers, and takes it out of the one that has it."""

from __future__ import annotations

import gzip
import re
import shutil
import tarfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, cast

from serving.runtimes.containers.oci import Layer

_GZIP, _ZSTANDARD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"


class DamagedLayer(Exception):
    """A layer that is no tar archive, compressed or not. Its digest was right: it was made so."""


def candidates(layers: Sequence[Layer], file: str) -> list[Layer]:
    """An image's layers in the order in which to look for a file, by its absolute path.

    A later layer hides the files of those below, so the highest comes first; but before all others come those whose
    line in the Dockerfile names the file, since most of the rest do not touch it, and each costs a download.
    """
    word = re.compile(rf"(?<![\w./-]){re.escape(file)}(?![\w./-])")
    highest_first = layers[::-1]
    return sorted(highest_first, key=lambda layer: not word.search(layer.created_by))


def extract(layer: Path, file: str, target: Path) -> bool:
    """Write the regular file of this absolute path in ``layer``, a blob on disk, to ``target``, executable; whether
    there is one. Raises `DamagedLayer`, and OSError where it cannot be written."""
    wanted = file.strip("/")
    try:
        with _decompressed(layer) as stream, tarfile.open(fileobj=stream, mode="r|") as tar:
            for member in tar:
                if member.name.removeprefix("./").strip("/") != wanted or not member.isreg():
                    continue
                content = tar.extractfile(member)
                assert content
                with target.open("wb") as copy:
                    shutil.copyfileobj(content, copy, 2**20)
                target.chmod(0o755)
                return True
    except (tarfile.TarError, gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DamagedLayer(str(error)) from None
    return False


@contextmanager
def _decompressed(layer: Path) -> Iterator[IO[bytes]]:
    """A layer's tar archive, however it is compressed: media types do not always say."""
    with layer.open("rb") as blob:
        magic = blob.read(4)
        blob.seek(0)
        if magic.startswith(_GZIP):
            with gzip.open(blob) as stream:
                yield cast(IO[bytes], stream)
        elif magic == _ZSTANDARD:
            from backports import zstd

            try:
                with zstd.open(blob) as stream:
                    yield cast(IO[bytes], stream)
            except zstd.ZstdError as error:
                raise DamagedLayer(str(error)) from None
        else:
            yield blob
