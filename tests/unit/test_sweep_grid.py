"""The grammar of swept values: Hydra's meaning, any language, values as typed; points in a stable order."""

from __future__ import annotations

import math
import string
from itertools import product

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import given, settings
from hypothesis import strategies as st

from configs.errors import ConfigError
from launch.sweep_grid import (
    Axis,
    BadSweep,
    Point,
    Range,
    grid_points,
    read_value,
    read_words,
    space_words,
    split_top,
    sweep_hash,
)

HYDRA = OverridesParser.create()
PLAIN = st.text(string.ascii_letters + string.digits + "病人.-_/%+", min_size=1, max_size=6)


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("1,2,3", ("1", "2", "3")),
        ("5e-5, 1e-4", ("5e-5", "1e-4")),
        ("3 epochs,5 epochs", ("3 epochs", "5 epochs")),
        ("'x,y',z", ("'x,y'", "z")),
        (r"x\,y,z", ("x,y", "z")),
        ("[1,2],[3,4]", ("[1,2]", "[3,4]")),
        ("{a: 1, b: 2},{a: 3}", ("{a: 1, b: 2}", "{a: 3}")),
        ("choice(8,16)", ("8", "16")),
        ("choice(8)", ("8",)),
        ("range(4)", ("0", "1", "2", "3")),
        ("range(1,4)", ("1", "2", "3")),
        ("range(0.1,0.5,0.1)", ("0.1", "0.2", "0.3", "0.4")),
        ("range(3,0,-1)", ("3", "2", "1")),
        ("/病人/a.jsonl,~/b=c.jsonl", ("/病人/a.jsonl", "~/b=c.jsonl")),
        ("你好，再见,再见", ("你好，再见", "再见")),
        ("auto,1e-5", ("auto", "1e-5")),
    ],
)
def test_values(text: str, values: tuple[str, ...]) -> None:
    assert read_value("a", text) == Axis("a", values)


@pytest.mark.parametrize("text", ["1", "[q_proj, v_proj]", "{a: 1, b: 2}", "'a, b'", "", "x(y)", "3 epochs", r"a\,b", "医生。请用中文，好吗？"])
def test_one_plain_value_is_not_swept(text: str) -> None:
    assert read_value("a", text) is None


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("1,,2", "an empty value"),
        ("1,2,1", "1 is there twice"),
        ("[1,2", "] is missing"),
        ("'a,b", "' is missing"),
        ("range(3,1)", "an empty range"),
        ("range(a)", "expected range(stop)"),
        ("range(1e9)", "more than 1000 values"),
        ("sort(3,1)", "sort() is not used here"),
        ("glob(*)", "glob() is not used here"),
        ("interval(2,1)", "expected low < high"),
        ("tag(log,interval(0,1))", "more than 0 on a logarithmic scale"),
        ("interval(1)", "expected interval(low,high)"),
        ("tag(lin,interval(0,1))", "expected interval(low,high)"),
    ],
)
def test_what_is_not_well_formed_is_refused(text: str, says: str) -> None:
    with pytest.raises(BadSweep) as caught:
        read_value("a", text)
    assert says in str(caught.value)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("interval(0,0.3)", Range("a", "float", 0.0, 0.3)),
        ("tag(log, interval(1e-5, 1e-3))", Range("a", "float", 1e-5, 1e-3, True)),
        ("int(interval(8,64))", Range("a", "int", 8, 64)),
        ("tag(log,int(interval(8,64)))", Range("a", "int", 8, 64, True)),
    ],
)
def test_ranges_of_a_search(text: str, expected: Range) -> None:
    assert read_value("a", text) == expected


@settings(max_examples=40, deadline=None)
@given(st.lists(PLAIN, min_size=2, max_size=5, unique=True))
def test_values_come_back_as_typed(values: list[str]) -> None:
    assert read_value("a", ",".join(values)) == Axis("a", tuple(values))


@settings(max_examples=20, deadline=None)
@given(
    st.lists(
        st.one_of(
            st.integers(-99, 99).map(str),
            st.floats(1e-6, 1e6).map(lambda x: f"{x:.3g}"),
            st.sampled_from(["auto", "3 epochs", "10%", "'a, b'", "[1,2]", "{x:1,y:2}", "/a/b.jsonl", "null", "true"]),
        ),
        min_size=2,
        max_size=4,
        unique_by=lambda text: str(HYDRA.parse_override(f"a={text}").value()),
    )
)
def test_hydra_finds_the_same_values_where_it_can_read_them(values: list[str]) -> None:
    text = ",".join(values)
    ours, theirs = read_value("a", text), HYDRA.parse_override(f"a={text}").value()
    assert isinstance(ours, Axis)
    plain = [getattr(value, "text", value) for value in theirs.list]  # Hydra keeps the quotes of a quoted one
    assert [HYDRA.parse_override(f"a={value}").value() for value in ours.values] == plain


@pytest.mark.parametrize("text", ["range(5)", "range(2,9,3)", "range(0,1,0.25)", "range(5,1,-2)"])
def test_ranges_are_hydra_s(text: str) -> None:
    ours = read_value("a", text)
    assert isinstance(ours, Axis)
    theirs = list(HYDRA.parse_override(f"a={text}").sweep_iterator())
    assert len(ours.values) == len(theirs)
    assert all(math.isclose(float(one), float(other)) for one, other in zip(ours.values, theirs, strict=True))


AXES = st.dictionaries(
    st.sampled_from(["optimizer.lr", "training.seed", "adapter.rank", "data.train"]),
    st.lists(PLAIN, min_size=2, max_size=4, unique=True),
    min_size=1,
    max_size=3,
)


@settings(max_examples=40, deadline=None)
@given(AXES)
def test_the_points_are_the_product_in_a_stable_order(axes: dict[str, list[str]]) -> None:
    words = [f"{key}={','.join(values)}" for key, values in axes.items()]
    points = grid_points(read_words(["run.yaml", *words]).axes)
    assert len(points) == math.prod(map(len, axes.values()))
    assert [point.number for point in points] == list(range(len(points)))
    assert [tuple(point.values.values()) for point in points] == list(product(*axes.values()))
    assert points == grid_points(read_words(words).axes)


@settings(max_examples=40, deadline=None)
@given(AXES)
def test_the_hash_does_not_depend_on_the_order_of_keys_and_points(axes: dict[str, list[str]]) -> None:
    def parts(items: list[tuple[str, list[str]]]) -> list[tuple[dict[str, str], str]]:
        points = grid_points([Axis(key, tuple(values)) for key, values in items])
        return [(point.values, "identity") for point in points]

    items = list(axes.items())
    assert sweep_hash(parts(items)) == sweep_hash(parts(items[::-1])) == sweep_hash(parts(items)[::-1])
    assert sweep_hash(parts(items)) != sweep_hash([(values, "other") for values, _ in parts(items)])


def test_a_command_line_is_told_apart() -> None:
    swept = read_words(["run.yaml", "adapter=lora", "optimizer.lr=5e-5,1e-4", "sweep.throttle=2", "training.seed=range(1,4)"])
    assert swept.fixed == ("run.yaml", "adapter=lora", "sweep.throttle=2")
    assert swept.axes == (Axis("optimizer.lr", ("5e-5", "1e-4")), Axis("training.seed", ("1", "2", "3")))
    assert str(grid_points(swept.axes)[3]) == "optimizer.lr=1e-4 training.seed=1"


def test_all_problems_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        read_words(["a=1,,2", "b=1,2", "b=3,4", "c=range(x)", "d=1", "d=1,2"])
    assert [problem.split(":")[0] for problem in caught.value.problems] == ["a=1,,2", "b=3,4", "c=range(x)", "d"]


def test_nothing_swept_and_intervals_are_no_grid() -> None:
    with pytest.raises(ConfigError, match="nothing is swept"):
        grid_points([])
    with pytest.raises(ConfigError, match=r"optimizer.lr: an interval has no list of points; sweep.trials=20"):
        grid_points([Range("optimizer.lr", "float", 0, 1)])
    with pytest.raises(ConfigError, match="10,000 points"):
        grid_points([Axis(name, tuple(map(str, range(10)))) for name in "abcd"])


def test_a_space_in_a_file_means_what_the_command_line_means() -> None:
    space = {"optimizer.lr": [5e-5, "1e-4"], "adapter.rank": "choice(8,16)", "training.seed": [1, 2]}
    axes = read_words(space_words(space)).axes
    assert [axis.values for axis in axes if isinstance(axis, Axis)] == [("5e-05", "1e-4"), ("8", "16"), ("1", "2")]


def test_parts_keep_what_brackets_hold() -> None:
    assert split_top("a[1,(2,3)],b") == ["a[1,(2,3)]", "b"]
    assert Point(0, {"a": "x y"}).words == ["a=x y"]
