"""Rules of the house that a machine can check: no pickle, no code from data, small files, evidence that can go stale."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path

import pytest

from benchmarks import evidence

ROOT = Path(__file__).parents[2]
PACKAGES = ("cli", "configs", "data_pipelines", "launch", "train")
SOURCES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))


def test_the_sources_are_found() -> None:
    assert len(SOURCES) > 100


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_pickle_and_no_foreign_code(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    imported = {alias.name.split(".")[0] for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    imported |= {node.module.split(".")[0] for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module}
    assert not imported & {"pickle", "dill", "cloudpickle", "shelve", "marshal"}
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            assert name not in ("torch.load", "torch.save", "eval", "exec", "os.system"), f"line {node.lineno}: {name}"
            for keyword in node.keywords:
                allows = isinstance(keyword.value, ast.Constant) and keyword.value.value is True
                assert not (keyword.arg in ("trust_remote_code", "shell") and allows), f"line {node.lineno}"


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_and_functions_stay_small(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert text.count("\n") <= 450
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            assert (node.end_lineno or 0) - node.lineno < 62, f"{node.name} has {(node.end_lineno or 0) - node.lineno + 1} lines"


def test_every_path_in_the_documents_exists() -> None:
    for page in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")]:
        for link in re.findall(r"\]\(([^)#:]+)\)", page.read_text(encoding="utf-8")):
            assert (page.parent / link).exists(), f"{page.name}: {link}"


def test_evidence_holds_until_a_covered_file_changes(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("one")
    value = json.dumps({"covers": {"a.py": evidence.content_hash(tmp_path / "a.py")}})
    folder = tmp_path / "evidence"
    folder.mkdir()
    (folder / "claim.json").write_text(value)
    assert evidence.check(folder, tmp_path) == []
    (tmp_path / "a.py").write_text("two")
    assert evidence.check(folder, tmp_path) == ["claim: stale, changed since: a.py"]
    (tmp_path / "a.py").unlink()
    assert evidence.check(folder, tmp_path) == ["claim: stale, changed since: a.py"]
