"""Intervals and paired comparisons, against scipy used directly and formulas written out; the gate's verdict on made-up losses."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import binomtest

from configs.errors import DataError
from train.forgetting import LEAST_DOCUMENTS, judge
from train.held_out import Items, as_task, compare, perplexity
from train.intervals import bootstrap, compare_means, compare_ratios, mean_figure, ratio_figure


def likelihood(nats: np.ndarray, tokens: np.ndarray, sources: int = 1) -> Items:
    names = [f"s{i}" for i in range(sources)]
    source = np.arange(len(nats)) % sources
    return Items([f"s{s}:{i}" for i, s in enumerate(source)], source, names, {"loss": nats}, tokens)


def test_a_proportion_has_wilsons_interval() -> None:
    """Wilson 1927 written out: n = 20, k = 14, z = 1.96."""
    figure = mean_figure(np.array([1.0] * 14 + [0.0] * 6))
    n, p, z = 20, 0.7, 1.959963984540054
    middle = (p + z**2 / (2 * n)) / (1 + z**2 / n)
    reach = z / (1 + z**2 / n) * math.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    assert (figure.low, figure.high) == pytest.approx((middle - reach, middle + reach), abs=1e-9)
    assert figure.value == 0.7 and figure.stderr == pytest.approx(math.sqrt(p * (1 - p) / (n - 1)))
    assert 0 < mean_figure(np.ones(5)).low < 1 == mean_figure(np.ones(5)).high, "five of five is not certainty"


def test_intervals_of_means_hold_the_truth_about_as_often_as_they_say() -> None:
    draw = np.random.default_rng(1)
    hits = 0
    for _ in range(40):
        tokens = draw.integers(5, 50, 60).astype(float)
        figure = ratio_figure(tokens * (2.0 + draw.normal(0, 0.5, 60)), tokens)
        hits += figure.low <= 2.0 <= figure.high
    assert hits >= 34, hits


def test_one_item_has_no_interval() -> None:
    figure = mean_figure(np.array([0.7]))
    assert figure.value == 0.7 and math.isnan(figure.low) and math.isnan(figure.high)
    single = ratio_figure(np.array([3.0]), np.array([2.0]))
    assert single.value == 1.5 and math.isnan(single.low) and math.isnan(perplexity(single).high)
    assert math.isnan(compare_means(np.array([1.0]), np.array([0.0])).low)
    assert mean_figure(np.array([0.7, 0.7])).low == 0.7


def test_mcnemar_counts_only_where_the_models_differ() -> None:
    first = np.array([1.0] * 9 + [0.0] + [1.0] * 40 + [0.0] * 20)
    second = np.array([0.0] * 9 + [1.0] + [1.0] * 40 + [0.0] * 20)
    found = compare_means(first, second)
    assert found.p == pytest.approx(binomtest(9, 10).pvalue) and found.test == "McNemar, exact"
    assert found.value == pytest.approx(8 / 70) and found.low < found.value < found.high
    same = compare_means(first, first)
    assert (same.value, same.low, same.high, same.p) == (0.0, 0.0, 0.0, 1.0)


def test_a_paired_difference_is_found_where_unpaired_noise_hides_it() -> None:
    draw = np.random.default_rng(2)
    tokens = draw.integers(10, 20, 40).astype(float)
    base = tokens * (3 + draw.normal(0, 1, 40))
    found = compare_ratios(base + 0.05 * tokens, base, tokens)
    assert found.value == pytest.approx(0.05) and found.low == pytest.approx(0.05) and found.p < 0.01
    first, second = ratio_figure(base + 0.05 * tokens, tokens), ratio_figure(base, tokens)
    assert first.low < second.value < first.high, "the two intervals alone show nothing"


def test_the_same_items_give_the_same_interval() -> None:
    values = np.random.default_rng(3).normal(size=30)
    assert mean_figure(values) == mean_figure(values)


def test_figures_by_source_and_perplexity() -> None:
    tokens = np.array([2.0, 4.0, 6.0, 8.0])
    task = as_task(likelihood(tokens * np.array([1.0, 2.0, 1.0, 2.0]), tokens, sources=2), "held_out", {})
    assert task.figures["loss/s0"].value == 1.0 and task.figures["loss/s1"].value == 2.0
    assert task.figures["perplexity"].value == pytest.approx(math.exp(task.figures["loss"].value))
    assert dict(task.items["loss"])["s1:1"] == 2.0


def test_pairs_count_each_the_same() -> None:
    values = {"loss": np.array([0.2, 0.9, 0.1, 0.4]), "accuracy": np.array([1.0, 0.0, 1.0, 1.0])}
    pairs = Items([f"p:{i}" for i in range(4)], np.zeros(4, np.int64), ["p"], values, None)
    task = as_task(pairs, "held_out", {})
    assert task.figures["accuracy"].value == 0.75 and set(task.figures) == {"loss", "accuracy"}
    assert compare(pairs, pairs)["accuracy"].p == 1.0


@pytest.mark.parametrize(("worse", "noise", "tripped"), [(0.5, 0.1, True), (0.0, 0.1, False), (0.08, 0.02, False), (0.5, 6.0, False)])
def test_the_gate_trips_only_when_it_is_sure(worse: float, noise: float, tripped: bool) -> None:
    draw = np.random.default_rng(4)
    tokens = draw.integers(20, 60, 30).astype(float)
    base = tokens * 2.0
    model = base + tokens * (worse + draw.normal(0, noise, 30))
    found = judge(likelihood(model, tokens), likelihood(base, tokens), bound=0.1, confidence=0.95)
    assert found["tripped"] is tripped and found["low"] < found["difference"] < found["high"]


def test_the_gates_interval_is_one_sided() -> None:
    draw = np.random.default_rng(5)
    tokens, difference = np.ones(50), draw.normal(0.3, 0.2, 50)
    found = judge(likelihood(1 + difference, tokens), likelihood(np.ones(50), tokens), bound=0.1, confidence=0.95)
    low, _, _ = bootstrap((difference,), lambda values, axis: np.mean(values, axis=axis), 0.90)
    assert found["low"] == pytest.approx(low, abs=2e-3)


def test_the_gate_wants_documents() -> None:
    few = likelihood(np.ones(LEAST_DOCUMENTS - 1), np.ones(LEAST_DOCUMENTS - 1))
    with pytest.raises(DataError, match=f"{LEAST_DOCUMENTS - 1} documents; expected {LEAST_DOCUMENTS} or more"):
        judge(few, few, bound=0.1, confidence=0.95)
