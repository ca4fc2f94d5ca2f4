"""A ZIP archive of JSON members, read without unpacking: bounded, no path leaves it, Zstandard included.

inspect writes its logs with Zstandard, which Python's `zipfile` reads from 3.14 on; until then pyarrow does it.
"""

import io
import lzma
import struct
import zipfile
import zlib
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from capgap.errors import TableError
from capgap.importers.reading import decode_utf8, parse_json

__all__ = ["MAX_MEMBER_BYTES", "MAX_UNPACKED_BYTES", "Archive"]

MAX_MEMBER_BYTES = 64 * 2**20
"""Bytes of one member, unpacked."""
MAX_UNPACKED_BYTES = 4 * 2**30
"""Bytes of all members that are read from one archive, unpacked."""
MAX_ARCHIVE_MEMBERS = 500_000
"""Members of one archive."""

_ZSTD_METHOD = 93
_ZIP_HEADER = struct.Struct("<26xHH")  # of a member; it ends with the lengths of its name and of what follows the name
# What a damaged archive makes zipfile and its decompressors raise.
_DAMAGED_ZIP_ERRORS = (
    zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error, EOFError, OSError, RuntimeError, ValueError,
    OverflowError,
)  # fmt: skip


class Archive:
    """An open archive; use it with `contextlib.closing`.

    Parameters
    ----------
    path
        The file.

    Raises
    ------
    TableError
        It is no ZIP archive, has too many members, or one whose name leads out of it.
    """

    def __init__(self, path: Path) -> None:
        self._unpacked = 0
        try:
            self._zip = zipfile.ZipFile(path)
        except _DAMAGED_ZIP_ERRORS as error:
            raise TableError(f"is no ZIP archive that can be read: {error}.") from None
        # Of two members of one name the later one counts, as for every reader of such files.
        self._members = {member.filename: member for member in self._zip.infolist()}
        self.names = list(self._members)
        """The members' names in the order of the archive."""
        try:
            _refuse_names(self._members)
        except TableError:
            self._zip.close()
            raise

    def close(self) -> None:
        """Close the file."""
        self._zip.close()

    def json(self, name: str) -> Any:
        """The JSON of a member.

        Raises
        ------
        TableError
            It is damaged, encrypted, too large, or no JSON.
        """
        return parse_json(decode_utf8(self._read_member_bytes(self._members[name])))

    def _read_member_bytes(self, member: zipfile.ZipInfo) -> bytes:
        if member.flag_bits & 0x1:
            raise TableError("is encrypted.")
        try:
            raw = self._read_zstandard(member) if member.compress_type == _ZSTD_METHOD else self._read_deflated(member)
        except NotImplementedError:
            raise TableError(
                f"is compressed in a way that Python cannot read (method {member.compress_type}). "
                f"Convert it: inspect log convert --to json --output-dir DIR FILE"
            ) from None
        except _DAMAGED_ZIP_ERRORS as error:
            raise TableError(f"is damaged: {error}.") from None
        if len(raw) > MAX_MEMBER_BYTES:  # whatever its header says
            raise TableError(f"is larger than {MAX_MEMBER_BYTES // 2**20} MB when unpacked.")
        self._unpacked += len(raw)
        if self._unpacked > MAX_UNPACKED_BYTES:
            raise TableError(f"is in an archive of more than {MAX_UNPACKED_BYTES // 2**30} GB when unpacked.")
        return raw

    def _read_deflated(self, member: zipfile.ZipInfo) -> bytes:
        with self._zip.open(member) as stream:
            return stream.read(MAX_MEMBER_BYTES + 1)

    def _read_zstandard(self, member: zipfile.ZipInfo) -> bytes:
        import pyarrow

        handle = self._zip.fp
        if handle is None:
            raise EOFError("the archive is closed")
        handle.seek(member.header_offset)
        lengths = _ZIP_HEADER.unpack(handle.read(_ZIP_HEADER.size))
        handle.seek(sum(lengths), io.SEEK_CUR)
        packed = handle.read(min(member.compress_size, MAX_MEMBER_BYTES + 1))
        try:
            with pyarrow.CompressedInputStream(pyarrow.BufferReader(packed), "zstd") as stream:
                raw = bytes(stream.read(MAX_MEMBER_BYTES + 1))
        except pyarrow.ArrowException as error:
            raise ValueError(str(error)[:200]) from None
        if zlib.crc32(raw) != member.CRC:
            raise ValueError("its checksum does not fit")
        return raw


def _refuse_names(members: dict[str, zipfile.ZipInfo]) -> None:
    if len(members) > MAX_ARCHIVE_MEMBERS:
        raise TableError(f"has more than {MAX_ARCHIVE_MEMBERS:,} members.")
    for name in members:
        windows = PureWindowsPath(name)
        leaves_archive = ".." in PurePosixPath(name).parts or ".." in windows.parts
        if leaves_archive or name.startswith(("/", "\\")) or windows.drive:
            raise TableError(f"has a member whose name leads out of it, {name[:80]!r}; nothing in it was read.")
