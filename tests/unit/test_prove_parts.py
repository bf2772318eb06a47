"""Pure parts of `aisc prove`: small shapes, pieces of documents, what a difference means, experts replayed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from configs.frontdoor import preset_names
from configs.schema import RunConfig
from data_pipelines.collate import collate
from data_pipelines.roles import Role
from data_pipelines.store import Document
from tests.small_store import small_store, write_store
from train.prove import ranks, verdict
from train.prove.cases import Case, make_cases
from train.prove.prove import last_line
from train.prove.routing import Recorder, Replay, find_routers
from train.prove.sample import NUM_PAIRS, NUM_PIECES, PIECE_TOKENS, Sample, cut_pairs, cut_pieces
from train.prove.shape import is_mixture, reduced_shape

ROOT = Path(__file__).parents[2]
PRESETS = sorted(preset_names("model"))


def arch(name: str) -> dict[str, Any]:
    values: dict[str, Any] = yaml.safe_load((ROOT / "configs" / "model" / f"{name}.yaml").read_text())["arch"]
    return values


@pytest.mark.parametrize("name", PRESETS)
def test_a_reduced_shape_keeps_what_makes_the_architecture(name: str) -> None:
    from transformers import AutoConfig, AutoModelForCausalLM

    values = arch(name)
    small = reduced_shape(values)
    kept = ("model_type", "vocab_size", "tie_word_embeddings", "max_position_embeddings", "rope_theta")
    assert {key: small.get(key) for key in kept} == {key: values.get(key) for key in kept}
    grouped = values["num_attention_heads"] > values.get("num_key_value_heads", values["num_attention_heads"])
    assert (small["num_attention_heads"] > small.get("num_key_value_heads", 4)) == grouped
    assert is_mixture(small) == is_mixture(values)
    config = AutoConfig.for_model(small["model_type"], **{k: v for k, v in small.items() if k != "model_type"})
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    vocabulary = model.get_input_embeddings().weight.numel() * (1 if values["tie_word_embeddings"] else 2)
    assert sum(p.numel() for p in model.parameters()) - vocabulary < 500_000
    assert bool(find_routers(model)) == is_mixture(values)


def test_pieces_are_learned_from_and_of_different_lengths(tmp_path: Path) -> None:
    store = small_store(tmp_path, [200, 8, 60, 33, 90], sequence_length=256)
    pieces = cut_pieces(store)
    assert 10 <= len(pieces) <= NUM_PIECES
    assert all(piece.mask[1:].any() and 1 < len(piece.ids) <= max(PIECE_TOKENS) for piece in pieces)
    assert [piece.row for piece in pieces] == list(range(1, len(pieces) + 1))
    assert len({len(piece.ids) for piece in pieces}) > 3


def test_pairs_are_the_end_of_a_prompt_and_answers_of_unlike_lengths(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)

    def answer(prompt: Any, length: int, number: int, role: Role) -> Document:
        ids = np.concatenate([prompt, rng.integers(1, 500, length)]).astype(np.uint32)
        return Document(ids, np.arange(len(ids)) >= len(prompt), 0, number, number + 1, role, margin=number / 4)

    items = []
    for number, length in enumerate((60, 3, 90, 1, 20, 40, 200, 7)):
        prompt = rng.integers(1, 500, 5 + 9 * number)
        items.append([answer(prompt, length, number, Role.CHOSEN), answer(prompt, length + 2, number, Role.REJECTED)])
    pairs = cut_pairs(write_store(tmp_path, items, sequence_length=600))
    assert len(pairs) == NUM_PAIRS and [piece.row for pair in pairs for piece in pair] == list(range(1, 2 * NUM_PAIRS + 1))
    for won, lost in pairs:
        assert (won.role, lost.role) == (Role.CHOSEN, Role.REJECTED) and won.margin == lost.margin
        assert all(piece.mask.any() and not piece.mask[0] and len(piece.ids) <= max(PIECE_TOKENS) for piece in (won, lost))
    assert sum(won.mask.sum() != lost.mask.sum() for won, lost in pairs) >= NUM_PAIRS - 1


@pytest.mark.parametrize(("shard_size", "world", "found"), [(8, 2, None), (3, 2, None), (2, 2, 2), (2, 4, 2), (None, 2, None)])
def test_groups_of_more_ranks_than_there_are_become_one(shard_size: int | None, world: int, found: int | None) -> None:
    config = RunConfig()
    config.engine.shard_size = shard_size
    bench = ranks.Bench(Path(), config, Path("model"), "tokenizer", None, Sample(12, 12, 5, 60, 48, 300, 200, 64, 0), 3, False)
    case = Case("fsdp2", "engine", "sgd", "fsdp2", "varlen", world=world)
    made = ranks.configure(bench, case, ranks.Settings(1.0, {"sgd": 0.1}), "gloo")
    assert (made.engine.shard_size, made.engine.processes, made.training.global_batch_size) == (found, world, 5)


def outcome(case: Case, loss: list[float], grad_norm: list[float], micro_batches: int = 1) -> verdict.Outcome:
    rank = {"loss": loss, "grad_norm": grad_norm, "micro_batches": micro_batches}
    return verdict.Outcome(case, [dict(rank) for _ in range(case.world)])


PLAIN = {"sgd": {"loss": [4.0, 3.0], "grad_norm": [2.0, 1.0]}}
TWO = Case("2 ranks", "ranks", "sgd", "ddp", "varlen", world=2)


@pytest.mark.parametrize(
    ("loss", "grad_norm", "words"),
    [
        ([4.0, 3.3], [1.0, 1.0], "gradient norm of step 1 is 0.5 of the plain loop's (one over the number of ranks)"),
        ([4.0, 3.3], [4.0, 1.0], "gradient norm of step 1 is 2 of the plain loop's (the number of ranks)"),
        ([4.4, 3.0], [2.0, 1.0], "loss of step 1 is 1.1 of the plain loop's: the loss over ranks"),
        ([4.0, 3.3], [2.0, 1.0], "loss of step 2 is 1.1 of the plain loop's: ranks update differently"),
    ],
)
def test_a_difference_says_what_it_means(loss: list[float], grad_norm: list[float], words: str) -> None:
    row = verdict.judge_case(outcome(TWO, loss, grad_norm), PLAIN, {})
    assert row.is_ok is False and row.sentence.startswith(f"2 ranks / sgd: {words}")


def test_a_case_that_could_not_run_says_the_error_itself() -> None:
    trace = "exit codes [1]\n--- rank 0\nTraceback:\n  File x, line 3, in prepare\n    raise AssertionError\nAssertionError\n"
    assert last_line(trace) == "AssertionError"
    assert last_line("a line: of a library\nRuntimeError: mesh of 0 ranks\n") == "RuntimeError: mesh of 0 ranks"


def test_the_same_difference_is_traced_to_the_first_case() -> None:
    first = outcome(Case("packed rows", "packing", "sgd", "ddp", "varlen"), [4.4, 3.0], [2.0, 1.0])
    row = verdict.judge_case(outcome(TWO, [4.4, 3.0], [2.0, 1.0]), PLAIN, {first.case.key: first})
    assert row.sentence.endswith("as in `packed rows / sgd`")


def test_values_that_are_no_numbers_or_missing_are_broken() -> None:
    for loss in ([float("nan"), 3.0], [4.0]):
        row = verdict.judge_case(outcome(TWO, loss, [2.0, 1.0][: len(loss)]), PLAIN, {})
        assert row.is_ok is False and row.figures["loss"] == float("inf") and row.sentence


def test_cases_cover_the_engine_the_precision_and_the_experts() -> None:
    config = RunConfig()
    config.engine.name, config.training.precision = "zero2", "bf16"
    cases = make_cases(config, kernel="varlen", exact_kernel="varlen", worlds=[2, 3], is_mixture=True)
    assert len({case.key for case in cases}) == len(cases)
    assert {case.world for case in cases if case.engine == "zero2"} == {2, 3}
    assert [case.precision for case in cases if case.precision != "fp32"] == ["bf16"]
    assert sum(not case.replays for case in cases) == 1 and sum(case.is_spoiled for case in cases) == 1
    assert all(case.precision == "fp32" for case in cases if case.changes != "precision")


def test_experts_are_chosen_as_recorded(tmp_path: Path) -> None:
    """After the router's weights have changed, a replayed model still takes the experts of the first pass."""
    from transformers import AutoConfig, AutoModelForCausalLM

    values = reduced_shape(arch("tiny_deepseek_v3"))
    torch.manual_seed(0)
    config = AutoConfig.for_model(values["model_type"], **{k: v for k, v in values.items() if k != "model_type"})
    model = AutoModelForCausalLM.from_config(config)
    store = small_store(tmp_path, [9, 5])
    recorder = Recorder()
    recorder.attach(model)
    for number in range(2):
        document = int(np.flatnonzero(store.document_row == number + 1)[0])
        ids = torch.from_numpy(store.document(document)[0].astype(np.int64))
        with recorder.document(0, number), torch.no_grad():
            model(input_ids=ids[None], use_cache=False)
    routes = dict(recorder.routes)
    with torch.no_grad():
        for router in find_routers(model):
            router.weight.normal_()
    batch = collate(store, np.arange(store.num_rows), 0)
    replay = Replay(routes, store)
    holder = torch.nn.Identity()
    replay.attach(holder, model)
    holder(batch)
    seen: list[torch.Tensor] = []
    for router in find_routers(model):
        hidden = torch.randn(int(batch.cu_seqlens[-1]), values["hidden_size"])
        seen.append(router(hidden)[2])
    for layer, chosen in enumerate(seen):
        for place, document in enumerate(batch.document_ids.tolist()):
            if document >= 0:
                begin, end = batch.cu_seqlens[place], batch.cu_seqlens[place + 1]
                wanted = routes[0, int(store.document_row[document]) - 1][layer]
                assert (chosen[begin:end].numpy() == wanted).all()


def test_names_inside_doubled_wrappers_are_the_folders() -> None:
    """peft wraps fused experts twice; `aisc prove` found that sharded engines then missed their weights."""
    from train.weights import plain_name

    experts = "base_model.model.model.layers.1.mlp.experts.base_layer.base_layer.down_proj"
    assert plain_name(experts) == "model.layers.1.mlp.experts.down_proj"
    assert plain_name("base_model.model.lm_head.modules_to_save.default.weight") == "lm_head.weight"
