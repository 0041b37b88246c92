from __future__ import annotations

import os
from pathlib import Path

import pytest

from bregma.errors import InputError, RunError
from bregma.files import atomic_path, read_json, sha256_file, write_json, write_text


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def write_half(path: Path) -> None:
    with atomic_path(path) as temporary:
        temporary.write_text("half")
        raise ZeroDivisionError


class TestWriting:
    def test_folders_are_made_and_nothing_else_is_left(self, tmp_path: Path) -> None:
        write_text(tmp_path / "new" / "deep" / "f.txt", "größer\n")
        assert (tmp_path / "new" / "deep" / "f.txt").read_bytes() == "größer\n".encode()
        assert names(tmp_path / "new" / "deep") == ["f.txt"]

    def test_a_failure_leaves_the_old_file_alone(self, tmp_path: Path) -> None:
        path = tmp_path / "f.txt"
        write_text(path, "old")
        with pytest.raises(ZeroDivisionError):
            write_half(path)
        assert path.read_text() == "old"
        assert names(tmp_path) == ["f.txt"]

    def test_the_temporary_file_keeps_the_suffix(self, tmp_path: Path) -> None:
        """Writers such as Pillow choose the format by it."""
        with atomic_path(tmp_path / "picture.png") as temporary:
            assert temporary.suffix == ".png"
            assert temporary.parent == tmp_path

    def test_the_file_may_be_read_as_any_new_file(self, tmp_path: Path) -> None:
        plain = tmp_path / "plain"
        plain.touch()
        write_text(tmp_path / "f.txt", "x")
        assert (tmp_path / "f.txt").stat().st_mode == plain.stat().st_mode

    def test_a_folder_in_the_way(self, tmp_path: Path) -> None:
        (tmp_path / "f.txt" / "inside").mkdir(parents=True)
        with pytest.raises(RunError, match=r"f\.txt: cannot be written"):
            write_text(tmp_path / "f.txt", "x")
        assert names(tmp_path) == ["f.txt"]

    def test_a_file_where_a_folder_should_be(self, tmp_path: Path) -> None:
        (tmp_path / "f").touch()
        with pytest.raises(RunError, match=r"cannot be written.*choose a folder"):
            write_text(tmp_path / "f" / "g.txt", "x")

    @pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
    def test_a_folder_without_permission(self, tmp_path: Path) -> None:
        tmp_path.chmod(0o500)
        try:
            with pytest.raises(RunError, match="Permission denied"):
                write_text(tmp_path / "f.txt", "x")
        finally:
            tmp_path.chmod(0o700)


class TestJson:
    def test_round_trip(self, tmp_path: Path) -> None:
        data = {"ä": [1, 2.5, None, True], "b": {"c": "x"}}
        write_json(tmp_path / "f.json", data)
        assert read_json(tmp_path / "f.json") == data
        assert "ä" in (tmp_path / "f.json").read_text(encoding="utf-8")

    def test_nan_is_refused_and_nothing_written(self, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match="JSON compliant"):
            write_json(tmp_path / "f.json", {"a": float("nan")})
        assert names(tmp_path) == []

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            (b'{"a": 1,\n "b": }', r"f\.json, line 2: is not valid JSON"),
            (b"", r"f\.json, line 1: is not valid JSON"),
            (b"\xff\xfe", r"f\.json: is not UTF-8"),
            (b"[" * 200_000, r"f\.json: is nested too deeply"),
        ],
    )
    def test_broken_files(self, tmp_path: Path, content: bytes, message: str) -> None:
        (tmp_path / "f.json").write_bytes(content)
        with pytest.raises(InputError, match=message):
            read_json(tmp_path / "f.json")

    def test_a_missing_file(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match=r"cannot be read \(No such file"):
            read_json(tmp_path / "none.json")


class TestHash:
    def test_the_published_digest_of_abc(self, tmp_path: Path) -> None:
        """FIPS 180-4's example."""
        (tmp_path / "f").write_bytes(b"abc")
        assert sha256_file(tmp_path / "f") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"

    def test_a_missing_file(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match="cannot be read"):
            sha256_file(tmp_path / "none")
