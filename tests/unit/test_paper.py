"""The paper kit: tables that read back, LaTeX that is balanced and escaped, citations that resolve, figures that parse."""

from __future__ import annotations

import csv
import io
import re
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from configs.schema.objective import PREFERENCE
from tests.full_run import CHINESE, NASTY, write_full_run
from train.dossier import read_dossier
from train.paper import write_paper
from train.paper.citations import WORKS
from train.paper.methods import as_markdown, write_methods
from train.paper.tables import escape

ROOT = Path(__file__).parents[2]
UNESCAPED = {r"\textbackslash{}": "\\", r"\textasciitilde{}": "~", r"\textasciicircum{}": "^", r"\textless{}": "<", r"\textgreater{}": ">",
             r"\textbar{}": "|", "{[}": "[", "{*}": "*", "-{}": "-", "'{}": "'", "`{}": "`", r"\{": "{", r"\}": "}", r"\&": "&", r"\%": "%", r"\$": "$", r"\#": "#", r"\_": "_"}  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run with its kit."""
    path = write_full_run(tmp_path_factory.mktemp("paper"))
    write_paper(path, path)
    return path


def rows(run: Path, name: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO((run / "paper" / f"{name}.csv").read_text(encoding="utf-8"))))


def unescape(text: str) -> str:
    return re.sub("|".join(re.escape(word) for word in UNESCAPED), lambda found: UNESCAPED[found.group()], text)


def test_results_read_back_with_their_intervals(run: Path) -> None:
    found = {(row["model"], row["task"], row["measure"]): row for row in rows(run, "results")}
    icd = found["this model", "icd", "acc"]
    assert [float(icd[key]) for key in ("value", "95% low", "95% high")] == pytest.approx([0.74, 0.705, 0.775]) and icd["n"] == "600"
    assert found["starting model", NASTY, "acc"]["value"] == "0.300000"
    assert found["this model", f"held-out data: {CHINESE}", "loss"]["value"] == "0.481000"
    assert not any(row["task"] == "mmlu_fewshot" for row in rows(run, "results")), "a check is no result"


def test_data_and_settings_read_back(run: Path) -> None:
    assert {row["source"]: row["rows read"] for row in rows(run, "data")}[NASTY] == "402"
    settings = {row["setting"]: row["value"] for row in rows(run, "hyperparameters")}
    assert settings["objective.beta"] == "0.1" and settings["optimizer.lr"] == "5e-06" and settings["adapter.rank"] == "16"
    assert "objective.odds_weight" not in settings, "not read by dpo"


@pytest.mark.parametrize("name", ["results", "hyperparameters", "data"])
def test_latex_is_balanced_and_says_what_the_csv_says(run: Path, name: str) -> None:
    text = (run / "paper" / f"{name}.tex").read_text(encoding="utf-8")
    bare = re.sub(r"\\[\\{}&%$#_]", "", text)
    depth = 0
    for character in bare:
        depth += {"{": 1, "}": -1}.get(character, 0)
        assert depth >= 0
    assert depth == 0
    assert re.findall(r"\\begin\{(\w+)\}", text) == re.findall(r"\\end\{(\w+)\}", text)[::-1] == ["table", "tabular"]
    body = text.split("\\hline\n", 1)[1].rsplit("\\hline", 1)[0]
    assert not re.search(r"(?<!\\)[%$#_~^]", body.replace("\\\\ \\hline", "")), "a character that LaTeX would take as its own"
    lines = [re.split(r"(?<!\\)&", line.replace(" \\hline", "").removesuffix(r"\\")) for line in body.strip().splitlines()]
    cells = [[unescape(cell.strip()) for cell in line] for line in lines]
    read = list(csv.reader(io.StringIO((run / "paper" / f"{name}.csv").read_text(encoding="utf-8"))))
    assert cells == [[" ".join(cell.split()) for cell in row] for row in read]


def test_every_special_character_is_escaped() -> None:
    hostile = r"[2pt] *\{}&%$#_~^<>| \input{/etc/passwd} $\alpha$ --dtype ``x''" + "\nnew line"
    assert unescape(escape(hostile)) == " ".join(hostile.split())
    assert "\n" not in escape(hostile) and r"\input" not in escape(hostile)
    # `\\` ends a row and would take a bracket as its argument, and two hyphens become a dash.
    assert escape(hostile).startswith("{[}2pt] {*}") and "--" not in escape(hostile)


def test_names_are_no_markdown() -> None:
    assert as_markdown("q_proj, 1e-05, cosine") == "q_proj, 1e-05, cosine"
    assert as_markdown("@x <b>\n*a* _b_ [c](d) $e$ `f`") == r"\@x \<b\> \*a\* \_b\_ \[c\](d) \$e\$ \`f\`"


def test_figures_are_svg_and_need_nothing_from_outside(run: Path) -> None:
    names = sorted(path.name for path in (run / "paper").glob("*.svg"))
    assert names == ["evaluation.svg", "gradient_norm.svg", "learning_rate.svg", "loss.svg", "preferences.svg"]
    for name in names:
        root = ElementTree.parse(run / "paper" / name).getroot()
        assert root.tag == "{http://www.w3.org/2000/svg}svg" and len(list(root.iter())) > 30
        targets = [value for node in root.iter() for key, value in node.attrib.items() if key.endswith("href")]
        assert all(target.startswith("#") for target in targets)


def test_what_is_cited_is_listed_and_what_is_listed_is_cited(run: Path) -> None:
    methods, bib = ((run / "paper" / name).read_text(encoding="utf-8") for name in ("methods.md", "references.bib"))
    cited = set(re.findall(r"@(\w+)", methods))
    assert cited == set(re.findall(r"^@misc\{(\w+),", bib, re.M)) == {"adamw", "cosine", "dpo", "harness", "lora", "zero"}
    assert bib.count("{") == bib.count("}")


@pytest.mark.parametrize("name", PREFERENCE)
def test_each_objective_names_its_paper(tmp_path: Path, name: str) -> None:
    run = write_full_run(tmp_path)
    config = run / "attempts" / "1" / "config.yaml"
    config.write_text(config.read_text(encoding="utf-8").replace("name: dpo", f"name: {name}"), encoding="utf-8")
    text, cited = write_methods(read_dossier(run))
    assert name in cited and f"[@{name}]" in text and set(cited) <= set(WORKS)


def test_a_reference_model_is_named_without_its_place(run: Path) -> None:
    dossier = read_dossier(run)
    assert "the reference model is the model that training started from [@dpo]." in write_methods(dossier)[0]
    dossier.config["objective"]["reference"] = "/secure/models/Qwen3-8B"
    text = write_methods(dossier)[0]
    assert "the reference model is Qwen3-8B [@dpo]." in text and "/secure" not in text


def test_methods_have_exact_values_and_no_path_of_this_machine(run: Path) -> None:
    methods = (run / "paper" / "methods.md").read_text(encoding="utf-8")
    for value in ("123,346 tokens", "rank 16", "beta 0.1", "5e-06", "1,273 evaluation items", "12 found (drop)", "8 x NVIDIA H800"):
        assert value in methods, value
    for path in (run / "paper").iterdir():
        text = path.read_text(encoding="utf-8")
        assert "/secure" not in text and str(run.parent) not in text, path.name


def test_pages_and_papers_need_no_torch(run: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from train.board import write_board; from train.paper import write_paper\n"
        f"run = Path({str(run)!r}); write_board(run, run); write_paper(run, run)\n"
        "assert not {'torch', 'transformers'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
