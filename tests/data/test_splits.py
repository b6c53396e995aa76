from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from palimpsest.data.splits import Split, parse_split, select
from palimpsest.facts import DataError


@pytest.mark.parametrize(
    ("expression", "split", "chosen"),
    [
        ("dev", Split("dev"), slice(0, 500)),
        ("dev[:]", Split("dev"), slice(0, 500)),
        ("dev[:400]", Split("dev", None, "400"), slice(0, 400)),
        ("dev[400:]", Split("dev", "400", None), slice(400, 500)),
        ("test-2.b[10:20]", Split("test-2.b", "10", "20"), slice(10, 20)),
        ("dev[:10%]", Split("dev", None, "10%"), slice(0, 50)),
        ("dev[10%:75]", Split("dev", "10%", "75"), slice(50, 75)),
        ("dev[99%:100%]", Split("dev", "99%", "100%"), slice(495, 500)),
    ],
)
def test_expressions(expression: str, split: Split, chosen: slice) -> None:
    assert parse_split(expression) == split
    assert parse_split(str(split)) == split
    assert split.slice(500) == chosen


def test_select() -> None:
    assert select("abcdefghij", "dev[20%:5]") == "cde"


@given(st.integers(2, 1_000), st.integers(1, 99))
def test_shares_make_up_the_whole(total: int, share: int) -> None:
    records = list(range(total))
    middle = total * share // 100
    if middle > 0:
        assert [*select(records, f"x[:{share}%]"), *select(records, f"x[{share}%:]")] == records


@pytest.mark.parametrize(
    "expression",
    [
        "",
        "[:3]",
        "dev[",
        "dev[3]",
        "dev[:-1]",
        "dev[::2]",
        "dev[a:]",
        "dev [:3]",
        "dev[:3]\n",
        "dev[:3%%]",
        "dev[:101%]",
    ],
)
def test_what_is_no_expression(expression: str) -> None:
    with pytest.raises(DataError) as caught:
        parse_split(expression)
    assert str(caught.value) == f"split {expression!r}: expected a form like dev, dev[:400] or dev[10%:20%]"


@pytest.mark.parametrize("bounds", ["[:11]", "[10:]", "[5:5]", "[6:5]", "[:9%]"])
def test_what_the_records_do_not_offer(bounds: str) -> None:
    with pytest.raises(DataError) as caught:
        select(range(10), f"dev{bounds}")
    assert str(caught.value).startswith(f"split dev{bounds}: expected at least one of 10 records, found ")
