"""Steps from lines: every form they may have, and one clear message for each that they may not have."""

from __future__ import annotations

import io
import math
from typing import Any

import pytest

from pipelines.data.errors import InputError
from pipelines.data.formats.step_lines import Step, read_steps


def steps(text: str | bytes, variables: str = "a b", **how: Any) -> list[tuple[list[float], str | None, bool]]:
    file = io.BytesIO(text) if isinstance(text, bytes) else io.StringIO(text)
    return [(s.values, s.series, s.begins) for s in read_steps(file, variables.split(), source="steps.csv", **how)]


def values(text: str | bytes, variables: str = "a b", **how: Any) -> list[list[float]]:
    return [one for one, _, _ in steps(text, variables, **how)]


@pytest.mark.parametrize(
    "text",
    [
        "1,2\n3,4\n",
        "1,2\n3,4",
        "1, 2\r\n 3 ,4\r\n",
        "1;2\n3;4\n",
        "1\t2\n3\t4\n",
        "1 2\n3   4\n",
        "a,b\n1,2\n3,4\n",
        "b,a\n2,1\n4,3\n",
        '"b","a"\n2,1\n"4",3\n',
        "a\tb\n1\t2\n3\t4\n",
        "c,b,a\nx,2,1\ny,4,3\n",
        "[1, 2]\n[3, 4.0]\n",
        '{"a": 1, "b": 2}\n{"b": 4, "a": 3, "c": "x"}\n',
        "\ufeffa,b\n1,2\n3,4\n".encode(),
    ],
)
def test_forms_of_the_same_steps(text: str | bytes) -> None:
    assert steps(text) == [([1.0, 2.0], None, True), ([3.0, 4.0], None, False)]


def test_what_was_not_measured() -> None:
    for text in ("1,\n,nan\n", "a,b\n1,?\nNA,null\n", "[1, null]\n[NaN, null]\n", "1\t\n\t\n"):
        (one, two), (three, four) = values(text)
        assert one == 1.0
        assert math.isnan(two)
        assert math.isnan(three)
        assert math.isnan(four)


def test_one_variable() -> None:
    assert values("1\n2.5\n-3e2\n", "x") == [[1.0], [2.5], [-300.0]]
    assert values("x\n1\n", "x") == [[1.0]]


def test_variables_whose_names_are_numbers() -> None:
    assert values("1,0\n5,6\n", "0 1") == [[6.0, 5.0]], "all names stand in the first line: a header"
    assert values("7,0\n5,6\n", "0 1") == [[7.0, 0.0], [5.0, 6.0]]


def test_series_begin_at_empty_lines_and_where_the_name_changes() -> None:
    assert [begins for _, _, begins in steps("\n1,2\n3,4\n\n\n5,6\n   \n7,8\n")] == [True, False, True, True]
    named = steps("id,a,b\nx,1,2\nx,3,4\ny,5,6\n")
    assert [(name, begins) for _, name, begins in named] == [("x", True), ("x", False), ("y", False)]
    assert [name for _, name, _ in steps('{"id": 7, "a": 1, "b": 2}\n{"id": "z", "a": 1, "b": 2}\n')] == ["7", "z"]
    assert [name for _, name, _ in steps("who,a,b\np,1,2\n", id="who")] == ["p"]
    assert steps("id,b\n1,2\n", "id b") == [([1.0, 2.0], None, True)], "a variable is no name of a series"


def test_columns_that_are_not_used_are_said_once() -> None:
    said: list[str] = []
    values("t,a,id,b,label\n0,1,x,2,up\n1,3,x,4,up\n", say=said.append)
    assert said == ["a new series begins where 'id' changes", "2 columns are not used: t, label"]
    said.clear()
    values('{"t": 0, "a": 1, "b": 2}\n{"t": 1, "a": 1, "b": 2}\n', say=said.append)
    assert said == ["1 column is not used: t"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("1,2\n3\n", r"steps.csv, line 2: another number of values.*Found: 1 in '3'.*Expected: one step.*2 numbers"),
        ("1,2\n3,4,5\n", "line 2: another number of values"),
        ("a,b,c\n1,2,3\n1,2\n", "line 3: another number.*Expected: 3 cells as in the header"),
        ("1,2\n\n3,x\n", "line 3: the value of 'b' is no number. Found: 'x'"),
        ("1,2\n3,inf\n", "line 2: the value of 'b' is no number. Found: 'inf'"),
        ("1,2\n3,1e39\n", "line 2: the value of 'b'"),
        ("1,2\n3,1_000\n", "line 2: the value of 'b'"),
        ("a,c\n1,2\n", "line 1: neither numbers nor a header.*Found: a, c.*missing: b"),
        ("value,b\n1,2\n", "line 1: neither numbers nor a header.*missing: a"),
        ("alpha,bta\n1,2\n", "line 1.*did you mean 'bta'"),
        ("a,b,b\n1,2,3\n", "line 1: two columns have one name. Found: b"),
        ("a,b,id,series\n1,2,3,4\n", "line 1: more than one column could name the series"),
        ("a,b,id\n1,2,x\n1,2,\n", "line 3: no name of the series"),
        ("[1, 2]\n[1]\n", "line 2: another number of values. Found: a list of 1"),
        ("[1, 2]\n[1, \n", "line 2: not a line of JSON"),
        ("[1, 2]\n3\n", "line 2: neither a list nor an object"),
        ("[1, 2]\n[1, true]\n", "line 2: the value of 'b' is no number. Found: True"),
        ('[1, 2]\n[1, "2"]\n', "line 2: the value of 'b' is no number"),
        ("[1, 2]\n[1, Infinity]\n", "line 2: the value of 'b' is no number. Found: inf"),
        (f"[1, {'9' * 400}]\n", "line 1: the value of 'b' is no number"),
        ('{"a": 1, "bb": 2}\n', "line 1: a variable is not in the object.*did you mean 'bb'"),
        ('{"a": 1, "b": 2, "id": [1]}\n', "line 1: not a name of a series"),
        ("[" * 100_000 + "\n", "line 1: not a line of JSON"),
        ("", "steps.csv: no steps. Found: nothing. Expected: one step a line"),
        ("\n\n", "steps.csv: no steps"),
        ("a,b\n", "steps.csv: no steps. Found: nothing but a header"),
        (b"1,2\n\xff\xfe,2\n", "line 2: the line is no text. Found: byte 0xff at place 1"),
        (b"1,2\n" + b"0" * (1 << 20) + b"0\n", "line 2: a line without an end"),
        ('1,"2\n', "line 1: the line cannot be split"),
    ],
)
def test_lines_that_are_no_steps(text: str | bytes, words: str) -> None:
    with pytest.raises(InputError, match=words):
        steps(text, "alpha beta" if isinstance(text, str) and text.startswith("alpha") else "a b")


def test_a_name_that_is_asked_for_must_be_there() -> None:
    with pytest.raises(InputError, match=r"no column 'whom'.*did you mean 'who'"):
        steps("who,a,b\np,1,2\n", id="whom")
    with pytest.raises(InputError, match="no header, so no column 'who'"):
        steps("1,2\n", id="who")


def test_a_labelled_set_in_lines_is_explained() -> None:
    with pytest.raises(InputError, match=r"save a labelled set of the UCR archive as .ts or .npz"):
        list(read_steps(io.StringIO("1\t0.5\t0.6\t0.7\n"), ["x"], source="Gun_TRAIN.tsv"))


def test_lines_are_read_one_at_a_time() -> None:
    class Slow:
        asked = 0

        def readline(self, size: int = -1) -> bytes:
            Slow.asked += 1
            return b"1,2\n" if Slow.asked < 5 else b"broken\n"

    found = read_steps(Slow(), ["a", "b"], source="slow")
    for number in range(1, 5):
        assert isinstance(next(found), Step)
        assert Slow.asked == number
    with pytest.raises(InputError, match="slow, line 5"):
        next(found)
