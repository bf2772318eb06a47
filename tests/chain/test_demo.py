"""The main job, as `make demo` runs it: real model, real corpus, thirty steps; then transformers alone."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from cli.main import main
from data_pipelines.corpora import hkcancor
from launch.runs import all_runs, read_replies

ROOT = Path(__file__).parents[2]

GENERATE = """
import sys
from transformers import AutoModelForCausalLM, AutoTokenizer
folder = sys.argv[1]
model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
prompt = tokenizer.apply_chat_template([{"role": "user", "content": "你今日食咗飯未呀?"}], add_generation_prompt=True,
                                       return_tensors="pt", return_dict=True)
out = model.generate(**prompt, max_new_tokens=24, do_sample=False)
ours = [name for name in sys.modules if name.split(".")[0] in ("cli", "configs", "data_pipelines", "train", "launch")]
print(len(out[0]) - prompt["input_ids"].shape[1], ours)
print(tokenizer.decode(out[0][prompt["input_ids"].shape[1]:]))
"""


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run folder of the demonstration."""
    runs = tmp_path_factory.mktemp("demo")
    corpus = ROOT / ".cache" / "demo" / "hkcancor"
    if not (corpus / "about.json").is_file():
        hkcancor.build(corpus, ROOT / ".cache" / "demo" / "smollm2", ROOT / ".cache" / "packages")
    about = json.loads((corpus / "about.json").read_text())
    assert about["counts"]["conversations"] == 58 and about["counts"]["windows"] == 1108
    assert main(["train", "experiment=demo", f"run.dir={runs}", f"data.store={runs / 'stores'}"]) == 0
    (run,) = all_runs(runs)
    return run.path


def test_held_out_loss_is_a_quarter_lower(finished: Path) -> None:
    result = json.loads((finished / "result.json").read_text())
    assert result["steps"] == 30 and result["eval_loss_before"] > 3.2
    assert result["eval_loss"] <= 0.75 * result["eval_loss_before"], result


def test_transformers_alone_loads_and_generates(finished: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", GENERATE, str(finished / "model")],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    count, ours = done.stdout.splitlines()[0].split(" ", 1)
    assert 1 <= int(count) <= 24 and ours == "[]"
    assert any("一" <= character <= "鿿" for character in done.stdout.splitlines()[1]), "it answers in Chinese characters"


def test_replies_before_and_after_and_a_report(finished: Path) -> None:
    from configs.runfolder import RunFolder

    replies = read_replies(RunFolder(finished))
    assert sorted({reply["step"] for reply in replies}) == [0, 30] and len(replies) == 6
    assert "<svg" in (finished / "report.html").read_text(encoding="utf-8")
