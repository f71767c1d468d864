from __future__ import annotations

import io
import lzma
import tarfile
from pathlib import Path

import pytest

from billhook.data import _deb
from billhook.data._deb import unpack_deb
from billhook.errors import DataError


def tar(*entries: tuple[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in entries:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def deb(path: Path, data: bytes, *, name: str = "data.tar.xz") -> Path:
    members = [("debian-binary", b"2.0\n"), ("control.tar.gz", b"odd"), (name, data)]
    blob = b"!<arch>\n"
    for member, content in members:
        blob += f"{member:<16}{0:<12}{0:<6}{0:<6}{'100644':<8}{len(content):<10}`\n".encode()
        blob += content + b"\n" * (len(content) % 2)
    path.write_bytes(blob)
    return path


def test_wanted_files_are_copied_and_no_others(tmp_path: Path) -> None:
    data = lzma.compress(tar(("./usr/a.gz", b"first"), ("./usr/b", b"second"), ("./etc/c", b"third")))
    target = tmp_path / "target"
    target.mkdir()

    unpack_deb(deb(tmp_path / "p.deb", data), {"a.gz": 5, "c": 100}, target)

    assert {p.name: p.read_bytes() for p in target.iterdir()} == {"a.gz": b"first", "c": b"third"}


def test_a_path_cannot_leave_the_target(tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.mkdir()

    unpack_deb(deb(tmp_path / "p.deb", lzma.compress(tar(("../../evil", b"x")))), {"evil": 9}, target)

    assert not (tmp_path / "evil").exists()
    assert (target / "evil").read_bytes() == b"x"


def test_links_are_not_followed(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        member = tarfile.TarInfo("./wanted")
        member.type, member.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(member)

    with pytest.raises(DataError, match="does not contain wanted"):
        unpack_deb(deb(tmp_path / "p.deb", lzma.compress(buffer.getvalue())), {"wanted": 9}, tmp_path)


def test_a_wanted_file_that_is_too_large_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="a has 10 bytes, too many"):
        unpack_deb(deb(tmp_path / "p.deb", lzma.compress(tar(("a", bytes(10))))), {"a": 9}, tmp_path)


def test_a_package_that_unpacks_to_too_much_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_deb, "_MAX_UNPACKED", 1_000_000)
    package = deb(tmp_path / "p.deb", lzma.compress(tar(("other", bytes(50_000_000)))))

    with pytest.raises(DataError, match="more data than allowed"):
        unpack_deb(package, {"a": 9}, tmp_path)


@pytest.mark.parametrize("keep", [0, 30, 100, 200, 300])
def test_a_truncated_package_is_named(tmp_path: Path, keep: int) -> None:
    package = deb(tmp_path / "p.deb", lzma.compress(tar(("a", bytes(range(256)) * 20))))
    package.write_bytes(package.read_bytes()[:keep])

    with pytest.raises(DataError, match=r"p\.deb"):
        unpack_deb(package, {"a": 10_000}, tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["p.deb"]


def test_an_unknown_compression_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"data\.tar\.zst.*dpkg-deb -x"):
        unpack_deb(deb(tmp_path / "p.deb", b"", name="data.tar.zst"), {"a": 1}, tmp_path)
