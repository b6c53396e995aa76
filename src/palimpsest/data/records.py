"""JSON files of records: clear errors on the way in, all or nothing on the way out.

Every error is a :class:`~palimpsest.facts.DataError` that names the file, the record (counted from 0, with its
``case_id`` or ``title`` where it has one) and the field, says what was expected and shows what was found.
"""

from __future__ import annotations

import dataclasses
import json
import reprlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TextIO, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, StringConstraints, ValidationError

from palimpsest.facts import DataError
from palimpsest.files import atomic_path

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

K = TypeVar("K", list[Any], dict[str, Any])
M = TypeVar("M", bound="Record")
T = TypeVar("T")
D = TypeVar("D", bound="DataclassInstance")

JSON_NAMES = {list: "a list", dict: "an object"}

# Pydantic's own wording names its classes and patterns; these say the same to a reader of the file.
WORDINGS = {
    "missing": "expected, but missing from",
    "model_type": "expected an object, found",
    "string_pattern_mismatch": "expected text that is not blank, found",
}


class Record(BaseModel):
    """Base of the models that describe one record of a file: nothing is coerced, unknown keys are ignored."""

    model_config = ConfigDict(strict=True, extra="ignore")


Text = Annotated[str, StringConstraints(pattern=r"\S")]
"""Text that is not blank."""

CaseId = Annotated[Text, BeforeValidator(lambda value: str(value) if type(value) is int else value)]
"""A case's name. The published files have integers, which are read as text."""


def case_number(case_id: str) -> int | str:
    """A case's name as the published files write it: an integer where reading that gives the same name again."""
    return int(case_id) if case_id.isdecimal() and str(int(case_id)) == case_id else case_id


def expect(condition: bool, field: str, expected: str, found: object) -> None:
    """Check a field beyond its type; for use in what :func:`parse_records` calls, which adds the file and the record.

    Raises:
        DataError: ``condition`` does not hold.
    """
    if not condition:
        raise DataError(f"{field}: expected {expected}, found {reprlib.repr(found)}")


def read_json(path: Path, kind: type[K]) -> K:
    """Read a JSON file whose top level is a list or an object.

    Args:
        path: a UTF-8 file.
        kind: ``list`` or ``dict``.

    Raises:
        DataError: the file is missing, unreadable, not UTF-8, not JSON, cut short, or of the other kind.
    """
    try:
        content = path.read_bytes()
        text = content.decode("utf-8")
        value = json.loads(text)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise DataError(f"{path}: line {line}: expected UTF-8, found {content[error.start : error.end]!r}") from error
    except json.JSONDecodeError as error:
        # A whole file ends by closing its top level; one that was cut nearly never does.
        whole = text.rstrip()
        cut = error.pos >= len(whole) or not whole.endswith(("]", "}"))
        hint = "; the file seems to be cut short" if cut else ""
        place = f"line {error.lineno}, column {error.colno}"
        raise DataError(f"{path}: {place}: expected JSON, found an error: {error.msg}{hint}") from error
    except (RecursionError, ValueError) as error:  # brackets a thousand deep, numbers of thousands of digits
        raise DataError(f"{path}: JSON beyond what can be read: {error}") from error
    if not isinstance(value, kind):
        raise DataError(f"{path}: expected {JSON_NAMES[kind]} at the top level, found {reprlib.repr(value)}")
    return value


def parse_records(
    path: Path, records: list[Any], model: type[M], convert: Callable[[M, int], T], start: int = 0
) -> list[T]:
    """Validate raw records and turn each into a value.

    Args:
        path: where they come from, for errors.
        records: the raw records.
        model: what a record must look like.
        convert: makes a value of a valid record and its index; may raise :class:`DataError` about a field.
        start: the index of the first record.

    Raises:
        DataError: a record is refused by the model or by ``convert``.
    """
    values = []
    for index, record in enumerate(records, start):
        try:
            values.append(convert(model.model_validate(record), index))
        except (ValidationError, DataError) as error:
            problem = _explain(error) if isinstance(error, ValidationError) else error
            raise DataError(f"{path}: {_name(record, index)}: {problem}") from error
    return values


@contextmanager
def atomic(path: Path) -> Iterator[TextIO]:
    """Open a text file that appears under its name when it is complete, or not at all; folders are made as needed."""
    with atomic_path(path) as temporary, temporary.open("x", encoding="utf-8", newline="\n") as file:
        yield file


def write_json(path: Path, value: object) -> None:
    """Write one value as indented JSON; NaN and infinities, which JSON does not have, are a ``ValueError``."""
    with atomic(path) as file:
        json.dump(value, file, ensure_ascii=False, indent=2, allow_nan=False)
        file.write("\n")


def write_list(
    path: Path,
    values: Iterable[D],
    to_record: Callable[[D], dict[str, Any]],
    model: type[M],
    convert: Callable[[M, int], D],
) -> int:
    """Write values as a JSON list, one record a line, in flat memory, and return how many there were.

    A format may have no place for all that a value holds, and what is lost so is seldom missed at once. Therefore each
    record must give its value back when it is read.

    Args:
        path: the file to write.
        values: dataclass instances.
        to_record: makes the record of a value.
        model: what a record must look like, as for :func:`parse_records`.
        convert: makes the value again, as for :func:`parse_records`.

    Raises:
        DataError: a value cannot be written so that reading gives it back. The file is then left as it was.
    """
    count = 0
    with atomic(path) as file:
        file.write("[")
        for index, value in enumerate(values):
            record = to_record(value)
            (again,) = parse_records(path, [record], model, convert, start=index)
            if again != value:
                lost = [
                    field.name
                    for field in dataclasses.fields(value)
                    if getattr(value, field.name) != getattr(again, field.name)
                ]
                raise DataError(f"{path}: {_name(record, index)}: this format cannot hold its {', '.join(lost)}")
            file.write((",\n" if index else "\n") + json.dumps(record, ensure_ascii=False, allow_nan=False))
            count += 1
        file.write("\n]\n")
    return count


def _name(record: object, index: int) -> str:
    fields = record if isinstance(record, dict) else {}
    names = [f"{key} {reprlib.repr(fields[key])}" for key in ("case_id", "title") if key in fields]
    return f"record {index}" + (f" ({', '.join(names)})" if names else "")


def _explain(error: ValidationError) -> str:
    first, *others = error.errors(include_url=False)
    field = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in first["loc"]).lstrip(".")
    message = first["msg"].replace("Input should be", "expected", 1)
    wording = WORDINGS.get(first["type"], f"{message}, found")
    more = f" (and {len(others)} more)" if others else ""
    return f"{field or 'the whole'}: {wording} {reprlib.repr(first['input'])}{more}"
