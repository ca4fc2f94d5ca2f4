"""Archives that somebody made to hurt: each ends in a message, none is unpacked."""

import io
import json
import struct
import zipfile
from contextlib import closing
from pathlib import Path

import pyarrow
import pytest

from capgap.errors import TableError
from capgap.importers import archive as module
from capgap.importers import import_inspect
from capgap.importers.archive import Archive
from tests.importers.written import eval_archive, inspect_log


def write(path: Path, raw: bytes) -> Path:
    path.write_bytes(raw)
    return path


def reason(path: Path) -> str:
    """Why nothing was imported from an archive."""
    batch = import_inspect([path])
    assert not batch.parts
    return "; ".join(one.reason + one.first for one in batch.skipped)


def test_a_member_that_unpacks_without_end_is_refused_at_its_bound(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_MEMBER_BYTES", 100_000)
    bomb = b'{"x": "' + b" " * 10_000_000 + b'"}'
    raw = eval_archive(inspect_log([]), extra={"samples/1_epoch_1.json": bomb})
    assert "larger than" in reason(write(tmp_path / "log.eval", raw))


def test_a_member_that_lies_about_its_size_is_refused_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_MEMBER_BYTES", 100_000)
    bomb = b" " * 10_000_000
    raw = eval_archive(inspect_log([]), extra={"samples/1_epoch_1.json": bomb})
    told = raw.replace(struct.pack("<I", len(bomb)), struct.pack("<I", 50))
    assert told != raw
    reason(write(tmp_path / "log.eval", told))  # whatever it says: no more than the bound was read


def test_all_members_together_have_a_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_UNPACKED_BYTES", 1_000)
    path = write(tmp_path / "log.eval", eval_archive(inspect_log()))
    batch = import_inspect([path])
    assert any("archive of more than" in one.reason for one in batch.skipped)


@pytest.mark.parametrize("name", ["../up.json", "samples/../../up.json", "/etc/up.json", "C:\\up.json", "..\\up.json"])
def test_a_name_that_leads_out_refuses_the_archive(name: str, tmp_path: Path) -> None:
    path = write(tmp_path / "log.eval", eval_archive(inspect_log(), extra={name: b"{}"}))
    assert "leads out of it" in reason(path)


def test_damage_and_encryption_are_named(tmp_path: Path) -> None:
    raw = eval_archive(inspect_log())
    assert "no ZIP archive" in reason(write(tmp_path / "cut.eval", raw[: len(raw) // 2]))
    changed = bytearray(raw)
    at = raw.index(b"samples/1")
    changed[at + 60 : at + 90] = b"\0" * 30
    batch = import_inspect([write(tmp_path / "damaged.eval", bytes(changed))])
    assert any("damaged" in one.reason for one in batch.skipped)
    assert len(batch.parts[0].rows) == 2
    locked = bytearray(raw)
    for mark, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        at = -1
        while (at := raw.find(mark, at + 1)) >= 0:
            locked[at + offset] |= 1
    assert "encrypted" in reason(write(tmp_path / "locked.eval", bytes(locked)))


def zstandard(raw: bytes) -> bytes:
    """The archive with every member packed anew in Zstandard, as inspect writes it."""
    out, central, old = io.BytesIO(), [], zipfile.ZipFile(io.BytesIO(raw))
    for member in old.infolist():
        content = old.read(member)
        packed = pyarrow.compress(content, codec="zstd", asbytes=True)
        name = member.filename.encode()
        fields = (20, 0, 93, 0, 33, member.CRC, len(packed), len(content), len(name), 0)
        central.append((struct.pack("<HHHHHIIIHH", *fields), out.tell(), name))
        out.write(b"PK\x03\x04" + struct.pack("<HHHHHIIIHH", *fields) + name + packed)
    start = out.tell()
    for fields_, offset, name in central:
        out.write(b"PK\x01\x02" + struct.pack("<H", 20) + fields_ + struct.pack("<HHHII", 0, 0, 0, 0, offset) + name)
    n, size = len(central), out.tell() - start
    out.write(b"PK\x05\x06" + struct.pack("<HHHHIIH", 0, 0, n, n, size, start, 0))
    return out.getvalue()


def test_zstandard_is_read_and_its_bombs_and_damage_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    raw = zstandard(eval_archive(inspect_log()))
    with closing(Archive(write(tmp_path / "log.eval", raw))) as archive:
        assert archive.json("header.json")["status"] == "success"
    assert len(import_inspect([tmp_path / "log.eval"]).parts[0].rows) == 3
    at = raw.index(b"samples/1") + len("samples/1_epoch_1.json") + 20
    damaged = raw[:at] + bytes([raw[at] ^ 0xFF]) + raw[at + 1 :]
    batch = import_inspect([write(tmp_path / "damaged.eval", damaged)])
    assert any("damaged" in one.reason for one in batch.skipped)
    monkeypatch.setattr(module, "MAX_MEMBER_BYTES", 100_000)
    bomb = zstandard(eval_archive(inspect_log([]), extra={"samples/1_epoch_1.json": b" " * 10_000_000}))
    told = bomb.replace(struct.pack("<I", 10_000_000), struct.pack("<I", 50))
    reason(write(tmp_path / "bomb.eval", told))


def test_a_compression_that_nobody_reads_is_named_with_the_way_out(tmp_path: Path) -> None:
    raw = eval_archive(inspect_log(), compression=zipfile.ZIP_STORED)
    told = raw
    for mark, offset in ((b"PK\x03\x04", 8), (b"PK\x01\x02", 10)):
        at = -1
        while (at := told.find(mark, at + 1)) >= 0:
            told = told[: at + offset] + struct.pack("<H", 98) + told[at + offset + 2 :]
    assert "inspect log convert" in reason(write(tmp_path / "log.eval", told))


def test_the_later_of_two_members_of_one_name_counts(tmp_path: Path) -> None:
    log = inspect_log()
    later = json.dumps({**log["samples"][0], "scores": {"match": {"value": "I"}}}).encode()
    with pytest.warns(UserWarning, match="Duplicate name"):
        raw = eval_archive(log, extra={"samples/1_epoch_1.json": later})
    (part,) = import_inspect([write(tmp_path / "log.eval", raw)]).parts
    assert [row["score"] for row in part.rows] == [0.0, 1.0, 1.0]


def test_what_is_no_archive_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TableError, match="no ZIP archive"):
        Archive(write(tmp_path / "x.eval", b"PK\x03\x04"))
