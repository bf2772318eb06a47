"""Formulas of plans against numbers worked out by hand, and against what others published of the same models."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

import configs
from configs import compose
from configs.engine_choice import Candidate
from configs.facts import Facts, Shape
from configs.memory import Model, Setup, estimate, model_of
from configs.schema import RunConfig
from configs.site import Network, Partition, Price, Project, Site
from launch.plan import Size, budget_left, budget_problem, make_plan
from launch.plan.cards import CARDS, default_mfu, find_card
from launch.plan.cases import CASES, memory_band
from launch.plan.choice import Fit, Nodes, fit
from launch.plan.cost import hours_of
from launch.plan.figures import FORMULA, GB, GIVEN, MEASURED, PUBLISHED, Figure, spell, spell_hours, weakest
from launch.plan.flops import attention_forward, flops_of, looks_of
from launch.plan.speed import HOST_LINK, Rate, host_seconds, save_stall, speed_of, traffic_of
from launch.plan.work import Work, work_of

PRESETS = {
    path.stem: dict(yaml.safe_load(path.read_text(encoding="utf-8"))["arch"])
    for path in sorted((Path(configs.__file__).parent / "model").glob("*.yaml"))
}

# One layer of width 4 with 2 heads of 2, an MLP of 3, 5 tokens of vocabulary:
# q, k, v, o: 4 x 16 = 64; gate, up, down: 3 x 12 = 36; head: 20. N = 120.
TINY = {
    "model_type": "llama",
    "vocab_size": 5,
    "hidden_size": 4,
    "intermediate_size": 3,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
}
ONE_NODE = Nodes(1, 8, 80 * GB, 2000 * GB)
PARTITION = Partition(gpu="H800", gpu_memory_gb=80, gpus_per_node=8, price_per_gpu_hour=25.0)
SITE = Site(
    path=Path("/etc/aisc/site.yaml"),
    default_partition="gpu",
    partitions={"gpu": PARTITION},
    price=Price(subsidy=0.7, source="letter"),
    projects={"oncology": Project(max_gpu_hours=100.0)},
)


def model(values: dict[str, Any], **lora: Any) -> Model:
    found = model_of(values, lora or None)
    assert found is not None
    return found


def config(*arguments: str, preset: str = "qwen3_8b", gpus: int = 8) -> RunConfig:
    loaded = compose.load([f"model={preset}", "training.gradient_checkpointing=full", *arguments])
    facts = Facts(num_gpus=gpus, model=PRESETS[preset], world_size=gpus, gpu_bytes=80 * GB)
    return compose.resolve(loaded.config, facts).config


def one(given: RunConfig, engine: str, nodes: Nodes = ONE_NODE, preset: str = "qwen3_8b") -> Fit:
    found = fit(given, model(PRESETS[preset]), Candidate(engine), nodes)
    assert found is not None
    return found


def test_operations_of_a_token_by_hand() -> None:
    # Attention over 7 tokens: 2 products x 2 operations x 7 tokens x (2 heads x 2) = 112.
    flops = flops_of(model(TINY), 7)
    assert flops.weights == 120
    assert flops.forward == 2 * 120 + 112
    assert flops.model == 3 * flops.forward == 6 * 120 + 12 * 1 * 2 * 2 * 7


def test_frozen_weights_have_no_gradient_of_their_own() -> None:
    # lora_A [2, 4] and lora_B [4, 2] on q_proj: 16 trained. 4 x (120 + 16) + 2 x 16 + 3 x 112.
    flops = flops_of(model(TINY, rank=2, target_modules=["q_proj"]), 7)
    assert flops.model == 4 * 136 + 2 * 16 + 3 * 112


def test_only_labelled_tokens_meet_the_head_and_a_tied_one_counts_too() -> None:
    assert flops_of(model(TINY), 7, labelled=0.5).weights == 110
    assert flops_of(model({**TINY, "tie_word_embeddings": True}), 7).weights == 120


def test_a_reward_model_has_a_head_of_one_row_and_no_words() -> None:
    # 64 of attention, 36 of the MLP, 4 of the head; no logits of words, whatever the embedding is tied to.
    for tied in (False, True):
        reward = model_of({**TINY, "tie_word_embeddings": tied}, is_reward=True)
        assert reward is not None and flops_of(reward, 7).weights == 104
        setup = Setup(engine="ddp", ranks=1, precision="fp32", optimizer="adamw", micro_batch_size=2, sequence_length=7)
        memory = estimate(reward, setup)
        # Norms of 4 three times, the embedding of 20.
        assert memory.parameters.accelerator == 4 * (104 + 12 + 20)
        assert memory.logits.accelerator == 14 * (4 * 4 + 8)


def test_kto_looks_at_each_batch_once_more() -> None:
    assert (looks_of("kto"), looks_of("dpo")) == (1, 0)
    plain, kto = flops_of(model(TINY), 7), flops_of(model(TINY), 7, looks=1)
    assert kto.model == plain.model + plain.forward and "kto's baseline" in kto.formula
    given = config("training.micro_batch_size=1")
    numbers = 8_190_735_360
    assert traffic_of(one(given, "zero3"), 1)[0] - traffic_of(one(given, "zero3"))[0] == pytest.approx(
        7 / 8 * one(given, "zero3").micro_batches * numbers * 2
    )
    assert traffic_of(one(given, "zero2"), 1) == traffic_of(one(given, "zero2"))


@pytest.mark.parametrize(
    ("objective", "reference_tokens", "passes"), [("sft", 0, 1), ("orpo", 0, 1), ("simpo", 0, 1), ("reward", 0, 1), ("dpo", 20e6, 1), ("kto", 20e6, 2)]
)
def test_a_reference_is_a_forward_pass_over_everything_before_step_1(objective: str, reference_tokens: float, passes: int) -> None:
    given = config(f"objective={objective}", "training.duration=1 epochs", "data.validation=5%", "data.train=a.jsonl", "evaluation.every=50%")
    work = work_of(given, Size(19_000_000, 9_500_000, 10_000))
    assert isinstance(work, Work) and work.reference_tokens == pytest.approx(reference_tokens)
    taken = one(given, "zero2")
    flops = flops_of(taken.model, 2048, 0.5, passes - 1)
    found = speed_of(taken, flops, work, Rate(1e14, Figure(0.1, "of peak", PUBLISHED, "")), Network())
    assert found.reference_h.value == pytest.approx(reference_tokens * flops.forward / (8 * 1e14) / 3600)
    assert found.reference_h.basis == FORMULA and found.wall_h.basis == FORMULA  # the sample makes it so
    assert found.step_s.value is not None and found.wall_h.value is not None
    rest = found.wall_h.value * 3600 - 313 * found.step_s.value - 10 * save_stall(taken)
    assert rest == pytest.approx((reference_tokens + 3 * passes * 1e6) * flops.forward / (8 * 1e14))


def test_a_pass_of_unknown_size_is_not_counted_and_said() -> None:
    given = config("objective=dpo", "training.duration=100 steps", "data.validation=none")
    work = work_of(given, None)
    assert isinstance(work, Work) and work.reference_tokens is None
    taken = one(given, "zero2")
    found = speed_of(taken, flops_of(taken.model, 2048), work, Rate(1e14, Figure(0.1, "of peak", PUBLISHED, "")), Network())
    assert found.reference_h.value is None and "reference's pass not known" in found.wall_h.formula


def test_recomputing_layers_is_another_forward_pass() -> None:
    flops = flops_of(model(TINY), 7)
    assert flops.done("full") == flops.model + flops.forward
    assert flops.done("none") == flops.done("selective") == flops.model


def test_deepseek_v3_activates_37_billion() -> None:
    # arXiv 2412.19437: 671B in all, 37B for each token, which counts the embedding (0.93 B) that multiplies nothing.
    whole = model(PRESETS["deepseek_v3"])
    embedding = PRESETS["deepseek_v3"]["vocab_size"] * PRESETS["deepseek_v3"]["hidden_size"]
    assert (flops_of(whole, 1).weights + embedding) / 1e9 == pytest.approx(37.5, rel=0.01)
    # Multi-head latent attention: 61 layers, 128 heads, queries and keys of 192, values of 128.
    assert attention_forward(whole, 4096) == 2 * 4096 * 61 * 128 * (192 + 128)


def test_torchtitans_own_speed_gives_its_own_utilisation() -> None:
    # 5,762 tokens/s a GPU, Llama 3.1 8B, 8,192 tokens, 8 H100: they say 33 % of 989 TFLOPS.
    flops = flops_of(model(PRESETS["llama3.1_8b"]), 8192)
    assert 5762 * flops.model / 989e12 == pytest.approx(0.33, abs=0.01)


def test_the_a800_assumption_is_the_published_speed() -> None:
    # 5.33 rows of 4,096 a second on 8 A800, Llama 7B, nothing recomputed.
    flops = flops_of(model({"model_type": "llama", "num_key_value_heads": 32}), 4096)
    card = find_card("A800")
    assert card is not None
    assert 5.33 * 4096 / 8 * flops.model / card.flops == pytest.approx(default_mfu(card, has_experts=False).value, abs=0.01)


def test_cards_by_name() -> None:
    assert [getattr(find_card(name), "name", None) for name in ("NVIDIA H800", "A100-SXM4-40GB", "4090", "h20", "MI300X")] == [
        "H800", "A100", "RTX 4090", "H20", None,
    ]
    assert find_card("A100-SXM4-40GB") is not None and find_card("A100-SXM4-40GB").memory_gb == 40  # type: ignore[union-attr]
    for card in CARDS:
        assert card.source and find_card(card.name) == card
        assert default_mfu(card, has_experts=False).source.startswith("https://")


def test_bytes_on_the_links_by_hand() -> None:
    given = config("training.global_batch_size=32", "training.micro_batch_size=1")
    numbers = 8_190_735_360
    share = 7 / 8  # of a ring of 8, everything but the own part passes
    assert one(given, "zero2").micro_batches == 4
    assert traffic_of(one(given, "zero2"))[0] == pytest.approx(share * numbers * (4 * 4 + 2))
    assert traffic_of(one(given, "zero3"))[0] == pytest.approx(share * 4 * numbers * (2 * 2 + 4))
    assert traffic_of(one(given, "fsdp2"))[0] == pytest.approx(share * 4 * numbers * (2 * 2 + 4))
    small = config("training.micro_batch_size=1", preset="qwen3_0.6b")
    n = sum(p.numel for p in model(PRESETS["qwen3_0.6b"]).parameters)
    assert traffic_of(one(small, "ddp", preset="qwen3_0.6b"))[0] == pytest.approx(share * 2 * n * 4)
    assert traffic_of(one(small, "zero1", preset="qwen3_0.6b"))[0] == pytest.approx(share * n * (4 + 2))


def test_a_step_takes_the_longer_of_computing_and_sending() -> None:
    given = config("training.micro_batch_size=1", "training.duration=100 steps", "data.validation=none")
    taken = one(given, "zero2")
    flops = flops_of(taken.model, 2048)
    work = work_of(given, None)
    assert isinstance(work, Work)
    rate = Rate(1e14, Figure(0.1, "of peak", PUBLISHED, "", band=0.01))
    alone = speed_of(taken, flops, work, rate, Network())
    compute = 4 * 2048 * (flops.model + flops.forward) / 1e14
    assert alone.step_s.value == pytest.approx(compute)
    assert alone.tokens_per_s.value == pytest.approx(32 * 2048 / compute)
    assert alone.tokens_per_s.band == pytest.approx(0.1 * 32 * 2048 / compute)
    slow = speed_of(taken, flops, work, rate, Network(within_node_gb_per_s=1.0))
    assert slow.step_s.value == pytest.approx(traffic_of(taken)[0] / 1e9)
    assert float(slow.step_s.value or 0) > compute
    # 100 steps and 10 saves, each a copy of an eighth of 12 bytes a number.
    assert save_stall(taken) == pytest.approx(8_190_735_360 * 12 / 8 / HOST_LINK)
    assert alone.wall_h.value == pytest.approx((100 * compute + 10 * save_stall(taken)) / 3600)


def test_evaluations_are_forward_passes_over_the_held_out_tokens() -> None:
    given = config("training.duration=1 epochs", "data.validation=5%", "data.train=a.jsonl", "evaluation.every=50%")
    work = work_of(given, Size(19_000_000, 9_500_000, 10_000))
    assert isinstance(work, Work)
    assert work.held_out_tokens == pytest.approx(1e6) and work.evaluations == 3  # before, half, end
    assert work.labelled == 0.5 and work.num_steps == 313 and work.tokens.basis == FORMULA
    taken = one(given, "zero2")
    flops = flops_of(taken.model, 2048, 0.5)
    rate = Rate(1e14, Figure(0.1, "of peak", PUBLISHED, ""))
    found = speed_of(taken, flops, work, rate, Network())
    assert found.step_s.value is not None and found.wall_h.value is not None
    rest = found.wall_h.value * 3600 - 313 * found.step_s.value - 10 * save_stall(taken)
    assert rest == pytest.approx(3 * 1e6 * flops.forward / (8 * 1e14))


def test_the_hosts_update_is_the_published_one() -> None:
    # 16.8 s more for 6.74 B numbers on one node: 20.4 s for 8.19 B.
    taken = fit(config(), model(PRESETS["qwen3_8b"]), Candidate("zero3", offload_optimizer=True), ONE_NODE)
    assert taken is not None
    assert host_seconds(taken) == pytest.approx(16.84 * 8.19 / 6.74, rel=0.01)
    assert host_seconds(one(config(), "zero2")) == 0


def test_rows_beyond_the_ranks_share_are_empty_but_take_time() -> None:
    given = config("training.global_batch_size=9", "training.micro_batch_size=1")
    assert one(given, "zero2").micro_batches == 2  # 16 places for 9 rows


def planned(*arguments: str, site: Site = SITE, **more: Any) -> Any:
    given = config("data.train=a.jsonl", "run.project=oncology", *arguments)
    facts = Facts(num_gpus=8, model=PRESETS["qwen3_8b"], world_size=8, gpu_bytes=80 * GB, host_bytes=2000 * GB)
    return make_plan(given, site, Shape(1, 8, 8, 1), facts, Size(100_000_000, 50_000_000, 50_000, "somebody"), **more)


def test_a_second_model_is_held_in_a_phase_of_its_own(tmp_path: Path) -> None:
    start, apart = planned("objective=dpo"), tmp_path / "config.json"
    assert start.column.memory["reference"].value == 0 and "no second model" in start.column.memory["reference"].formula
    apart.write_text(json.dumps({**PRESETS["qwen3_0.6b"], "dtype": "bfloat16"}))
    other = planned("objective=dpo", f"objective.reference={tmp_path}")
    size = 2 * sum(p.numel for p in model(PRESETS["qwen3_0.6b"]).parameters) / GB
    assert other.column.memory["reference"].value == pytest.approx(size)
    assert other.column.memory["peak"] == start.column.memory["peak"]  # a step holds more
    apart.write_text(json.dumps({**PRESETS["llama3.3_70b"], "dtype": "bfloat16"}))
    huge = planned("objective=dpo", f"objective.reference={tmp_path}")
    memory = huge.column.memory
    assert memory["peak"].value == pytest.approx(
        sum(memory[part].value for part in ("parameters", "optimizer", "reference"))
        + huge.column.fit.memory.logits.accelerator / GB
    )
    assert any("its pass needs" in note and "objective.reference=start" in note for note in huge.notes)


def test_money_is_hours_times_price() -> None:
    plan = planned()
    cost = plan.column.cost
    assert cost.gpu_hours.value == pytest.approx(8 * plan.wall_h)
    assert cost.list_price.value == pytest.approx(25.0 * cost.gpu_hours.value)
    assert cost.net_price.value == pytest.approx(0.3 * cost.list_price.value)
    assert "letter" in cost.list_price.source and cost.list_price.basis == PUBLISHED
    assert plan.cost_text().endswith("net") and " of 80 GB" in plan.fits_text()


def test_a_missing_price_is_asked_for_once() -> None:
    plan = planned(site=Site(path=Path("/s.yaml"), default_partition="gpu", partitions={"gpu": Partition(gpu="H800", gpus_per_node=8)}))
    assert plan.column.cost.list_price.value is None and plan.gpu_hours is not None
    assert [note for note in plan.notes if "price" in note] == [
        "money: /s.yaml lacks price_per_gpu_hour of this partition; the centre's price list has it"
    ]
    no_subsidy = planned(site=Site(path=Path("/s.yaml"), default_partition="gpu", partitions={"gpu": PARTITION}))
    assert no_subsidy.column.cost.list_price.value is not None and no_subsidy.column.cost.net_price.value is None
    assert any("price.subsidy" in note for note in no_subsidy.notes)


def test_space_of_checkpoints_and_export() -> None:
    disk = planned("checkpoint.keep=2").disk
    numbers = 8_190_735_360
    assert disk["checkpoint"].value == pytest.approx(12 * numbers / GB)
    assert disk["checkpoints"].value == pytest.approx(4 * 12 * numbers / GB)  # 2, the new one, the best one
    assert disk["export"].value == pytest.approx(2 * numbers / GB)
    assert disk["store"].value == pytest.approx(5 * 100_000_000 / GB)  # vocabulary above 65,536: 4 bytes and the mask
    assert disk["free"].basis == MEASURED


def test_the_frozen_plan_holds_every_figure() -> None:
    values = json.loads(json.dumps(planned().plan_json()))
    assert values["project"] == "oncology" and values["gpus"] == 8
    for figure in (*values["figures"].values(), *values["disk"].values()):
        assert figure["basis"] in (GIVEN, MEASURED, PUBLISHED, FORMULA)
        assert figure["formula"] or figure["missing"]


def test_budgets(tmp_path: Path) -> None:
    given = config("run.project=oncology", "cluster.max_gpu_hours=50")
    shape = Shape(1, 8, 8, 1)
    assert budget_problem(given, SITE, shape, 50.0, tmp_path) is None
    assert str(budget_problem(given, SITE, shape, 51.0, tmp_path)).startswith("cluster.max_gpu_hours=50: this takes 51.0 GPU-hours (planned)")
    assert "(6 x 10.0, planned)" in str(budget_problem(given, SITE, shape, 10.0, tmp_path, points=6))
    # Without a speed, one start's time limit counts: 1 h x 8 GPUs.
    assert "one start of cluster.time=7h" in str(budget_problem(config("cluster.time=7h", "cluster.max_gpu_hours=50"), SITE, shape, None, tmp_path))
    make_run(tmp_path / "a-1", "oncology", planned_hours=30.0, used=[(0.0, 3600.0)], verdict="finished")
    make_run(tmp_path / "b-2", "oncology", planned_hours=40.0, used=[(0.0, 3600.0)], verdict=None)
    make_run(tmp_path / "c-3", "other", planned_hours=99.0, used=[], verdict=None)
    assert hours_of(tmp_path / "a-1") == 16.0  # 2 nodes x 8 GPUs x 1 h: it is over
    assert budget_left(given, SITE, tmp_path) == 100.0 - 16.0 - 40.0
    assert budget_left(given, SITE, tmp_path, this_run="b-2") == 84.0
    assert budget_left(config("run.project=unheard"), SITE, tmp_path) is None
    problem = str(budget_problem(given, SITE, shape, 45.0, tmp_path))
    assert problem.startswith("run.project=oncology: this takes 45.0") and "44.0 of 100 are left (/etc/aisc/site.yaml" in problem
    (tmp_path / "b-2" / "goodput.json").write_text('{"unit": "GPU-hours", "total": 41.5}')
    assert hours_of(tmp_path / "b-2") == 41.5


def make_run(folder: Path, project: str, *, planned_hours: float, used: list[tuple[float, float]], verdict: str | None) -> None:
    (folder / "jobs").mkdir(parents=True)
    (folder / "plan.json").write_text(json.dumps({"project": project, "gpu_hours": planned_hours}))
    for number, (began, ended) in enumerate(used):
        start = {"job_id": 7, "stage": "train", "restart": number, "began": began, "ended": ended, "nodes": ["n1", "n2"], "gpus_per_node": 8, "verdict": verdict}
        (folder / "jobs" / f"7.{number}.json").write_text(json.dumps(start))


def test_published_cases_are_enough_and_their_errors_are_told() -> None:
    assert len(CASES) >= 12 and {case.setup.engine for case in CASES} >= {"zero2", "zero3", "fsdp2", "ddp"}
    assert all(case.source.startswith("https://") for case in CASES)
    band, where = memory_band("zero2", "none")
    errors = [case.error() for case in CASES if case.setup.engine == "zero2" and not case.on_host]
    assert band == pytest.approx((sum(e * e for e in errors) / len(errors)) ** 0.5) and "published figures" in where
    assert memory_band("zero1", "none") == (None, "")


def test_numbers_are_spelled_shortly() -> None:
    assert [spell(value) for value in (None, 0.25, 63_400, 117_800, 999_900, 2.1e9, 6.71e11)] == [
        "-", "0.25", "63.4 k", "118 k", "1.00 M", "2.10 B", "671 B",
    ]
    assert [spell_hours(value) for value in (None, 0.2, 9.34, 1234.5)] == ["-", "12 min", "9.3 h", "1,234 h"]
    assert weakest(GIVEN, MEASURED) == MEASURED and weakest(PUBLISHED, FORMULA, GIVEN) == FORMULA
