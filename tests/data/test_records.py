from __future__ import annotations

from pathlib import Path

import pytest

from palimpsest.data.records import (
    CaseId,
    Record,
    Text,
    atomic,
    case_number,
    parse_records,
    read_json,
    write_json,
)
from palimpsest.facts import DataError


class Part(Record):
    pos: list[int]


class Whole(Record):
    case_id: CaseId
    name: Text
    parts: list[list[Part]]


def whole(**changes: object) -> dict[str, object]:
    return {"case_id": 7, "name": "x", "parts": [[{"pos": [0, 1]}]]} | changes


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (None, "cannot be read (No such file or directory)"),
        (b"", "line 1, column 1: expected JSON, found an error: Expecting value; the file seems to be cut short"),
        (b'[\n{"a": 1,,}]', "line 2, column 9: expected JSON"),
        (b'[{"a": 1}, {"a": "uncl', "line 1, column 18: .*cut short"),
        (b'[{"a": 1}', "cut short"),
        (b'["ok",\n"\xff"]', r"line 2: expected UTF-8, found b'\xff'"),
        (b'{"a": 1}', "expected a list at the top level, found {'a': 1}"),
        (b"[" * 100_000, "JSON beyond what can be read"),
        (b"[" + b"9" * 5_000 + b"]", "JSON beyond what can be read"),
    ],
)
def test_files_that_cannot_be_read(tmp_path: Path, content: bytes | None, problem: str) -> None:
    path = tmp_path / "file.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError) as caught:
        read_json(path, list)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert all(part in message for part in problem.split(".*"))


def test_an_error_in_mid_file_is_not_taken_for_a_cut(tmp_path: Path) -> None:
    path = tmp_path / "file.json"
    path.write_text("[1, 2,, 3]", encoding="utf-8")
    with pytest.raises(DataError) as caught:
        read_json(path, list)
    assert "cut short" not in str(caught.value)


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="Is a directory"):
        read_json(tmp_path, list)


@pytest.mark.parametrize(
    ("record", "problem"),
    [
        (whole(name=3), "record 1 (case_id 7): name: expected a valid string, found 3"),
        (whole(name=" "), "record 1 (case_id 7): name: expected text that is not blank, found ' '"),
        (whole(parts=[[{"pos": [0, "1"]}]]), "parts[0][0].pos[1]: expected a valid integer, found '1'"),
        (whole(parts=[[{"pos": [0, True]}]]), "parts[0][0].pos[1]: expected a valid integer, found True"),
        (whole(parts=[[{}]]), "parts[0][0].pos: expected, but missing from {}"),
        (whole(case_id=1.5), "record 1 (case_id 1.5): case_id: expected a valid string, found 1.5"),
        (
            whole(case_id=None, name=3),
            "record 1 (case_id None): case_id: expected a valid string, found None (and 1 more)",
        ),
        (whole(name="\ud800"), "name: expected a valid string"),
        ({"title": "T"}, "record 1 (title 'T'): case_id: expected, but missing from {'title': 'T'}"),
        ([1], "record 1: the whole: expected an object, found [1]"),
    ],
)
def test_records_that_do_not_fit(record: object, problem: str) -> None:
    with pytest.raises(DataError) as caught:
        parse_records(Path("some.json"), [whole(), record], Whole, lambda valid, _: valid)
    message = str(caught.value)
    assert message.startswith("some.json: record 1")
    assert problem in message


def test_the_error_of_a_conversion_is_placed_too() -> None:
    def convert(record: Whole, index: int) -> None:
        raise DataError("parts: expected three, found one")

    with pytest.raises(DataError, match=r"^some\.json: record 0 \(case_id 7\): parts: expected three, found one$"):
        parse_records(Path("some.json"), [whole()], Whole, convert)


def test_a_case_number_reads_back_as_the_name() -> None:
    assert [case_number(name) for name in ("0", "12", "012", "-3", "a1", "٣")] == [0, 12, "012", "-3", "a1", "٣"]


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "file.json"
    path.write_text("old", encoding="utf-8")

    def interrupted() -> None:
        with atomic(path) as file:
            file.write("half")
            raise RuntimeError("interrupted")

    with pytest.raises(RuntimeError, match="interrupted"):
        interrupted()
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(path, [float("nan")])
    assert path.read_text(encoding="utf-8") == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_appears_only_when_complete(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "file.txt"
    with atomic(path) as file:
        file.write("é\n")
        file.flush()
        assert not path.exists()
    assert path.read_bytes() == b"\xc3\xa9\n"
    assert list(path.parent.iterdir()) == [path]


def test_written_json_reads_back(tmp_path: Path) -> None:
    path = tmp_path / "file.json"
    write_json(path, {"é": [1, None]})
    assert read_json(path, dict) == {"é": [1, None]}
