"""The board page: every figure is what its origin says, what is missing is said, and nothing in a name can break out."""

from __future__ import annotations

import dataclasses
import html
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cli.main import main
from configs import atomic
from configs.compose import freeze
from configs.errors import CheckpointError, UserError
from configs.runfolder import RunFolder
from configs.schema import RunConfig
from tests.full_run import CHINESE, HASHES, NASTY, write_full_run
from train.board import render_board, write_board
from train.board.regressions import Compared
from train.dossier import Measure, read_dossier


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A finished run with everything."""
    return write_full_run(tmp_path)


def page(run: Path) -> str:
    return render_board(read_dossier(run))


def change(path: Path, **values: Any) -> None:
    """Replaces keys of a JSON file."""
    atomic.write_json(path, {**json.loads(path.read_text()), **values})


def figures(text: str) -> list[tuple[str, str]]:
    """Returns (origin, text) of every figure on the page."""
    # Headings of columns carry an origin too, and are no figures.
    text = re.sub(r"<thead>.*?</thead>", "", text, flags=re.S)
    found = re.findall(r'<span class="fig[^"]*" title="([^"]*)">([^<]*)</span>', text)
    return [(html.unescape(origin), html.unescape(shown)) for origin, shown in found]


def values_at(run: Path, origin: str) -> Iterator[Any]:
    """Yields what lies in the run folder where an origin of one file and one key says; a name may have dots."""
    file, _, keys = origin.partition(": ")
    value = json.loads((run / file).read_text())
    parts = keys.split(".")
    while parts:
        for count in range(len(parts), 0, -1):
            name = ".".join(parts[:count])
            if isinstance(value, dict) and name in value:
                value, parts = value[name], parts[count:]
                break
        else:
            if not (isinstance(value, list) and parts[0].isdigit()):
                return
            value, parts = value[int(parts[0])], parts[1:]
    yield value


def says(shown: str, value: Any) -> bool:
    """Whether a text is that value, however it is rounded or spelled."""
    if shown == "-":
        return value is None
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        number = re.search(r"-?[\d,]*\.?\d+", shown)
        if number is None:
            return False
        digits = number.group().replace(",", "")
        if "e-" in shown:
            return float(shown) == pytest.approx(value, rel=0.05)
        scale = 100 if "%" in shown else 1
        decimals = len(digits.partition(".")[2])
        return abs(float(digits) - value * scale) <= 0.5000001 * 10**-decimals
    if isinstance(value, bool):
        return shown == {True: "tripped", False: "passed"}[value]
    return str(value).startswith(shown)


def test_every_figure_is_what_its_origin_says(run: Path) -> None:
    checked = 0
    for origin, shown in figures(page(run)):
        file = origin.partition(": ")[0]
        if file.endswith(".json") and "*" not in origin and (run / file).is_file():
            for value in values_at(run, origin):
                if not isinstance(value, (dict, list)):
                    assert says(shown, value), (origin, shown, value)
                    checked += 1
    assert checked > 60


def test_every_number_has_an_origin_in_the_list_at_the_end(run: Path) -> None:
    text = page(run)
    listed = re.findall(r'<li id="o(\d+)">([^<]+)</li>', text)
    assert [int(number) for number, _ in listed] == list(range(1, len(listed) + 1))
    assert {int(number) for number in re.findall(r'href="#o(\d+)"', text)} == {int(number) for number, _ in listed}
    ids = re.findall(r'\bid="([^"]+)"', text)
    assert len(ids) == len(set(ids)), "two elements of one id"


def test_the_page_is_one_file_without_script_or_outside(run: Path) -> None:
    text = page(run)
    assert "<script" not in text and "<link" not in text and "src=" not in text and "@import" not in text
    outside = re.sub(r"<svg.*?</svg>", "", text, flags=re.S)
    assert "://" not in outside and "default-src &#39;none&#39;" in outside.replace("'", "&#39;")
    assert not re.search(r'(?:xlink:)?href="(?!#)', text)


def test_names_cannot_break_out(run: Path) -> None:
    text = page(run)
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text and html.escape(NASTY) in text and CHINESE in text
    assert "<b>a&" not in text and "<i>_" not in text


def test_a_check_of_the_harness_is_never_a_score(run: Path) -> None:
    text = page(run)
    assert "mmlu_fewshot" in text and "No score is shown" in text
    assert not re.search(r"0\.98[78]|98\.[78]", text)


def test_what_got_worse_is_named(run: Path) -> None:
    text = page(run)
    rows = re.findall(r"<tr><td>(\w+)</td><td>acc</td>.*?<td>(better|worse|no difference shown)</td></tr>", text)
    assert rows == [("icd", "better"), ("refusal", "worse")]
    assert re.search(r">2</span><sup>.{1,40}</sup> of 5 figures got worse", text)


def test_a_paired_interval_without_0_is_not_enough_where_the_test_says_chance() -> None:
    """Two items that both got worse: the bootstrap's interval is -1 to -1, McNemar's exact p 0.5."""
    base, mine = (Measure("acc", value, None, None, 2, True) for value in (1.0, 0.0))
    pair = Compared("icd", base, "", mine, "", (-1.0, -1.0, -1.0), 0.5)
    assert pair.verdict == "no difference shown"
    assert dataclasses.replace(pair, p=0.01).verdict == "worse"


def test_a_damaged_configuration_is_one_sentence(run: Path) -> None:
    path = run / "attempts" / "1" / "config.yaml"
    path.write_bytes(b"model: [\xff")
    with pytest.raises(CheckpointError, match=r"config.yaml: damaged, no longer what the run wrote"):
        read_dossier(run)


def test_paired_differences_decide_and_the_gate_is_named(run: Path) -> None:
    text = page(run)
    assert "+0.130 (+0.080 to +0.180)" in text and text.count("not paired<") == 2 and ">passed</span>" in text
    file = run / "eval" / "model.json"
    values = json.loads(file.read_text())
    values["comparisons"]["base"]["icd"]["acc"] |= {"low": -0.01}
    values["forgetting"]["tripped"] = True
    change(file, **values)
    text = page(run)
    assert re.search(r"<td>icd</td>.*?<td>no difference shown</td>", text) and ">tripped</span>" in text


def test_a_release_says_what_is_in_it_and_whose_licence(run: Path, tmp_path: Path) -> None:
    atomic.write_json(run / "licences.json", {CHINESE: "CC-BY-4.0", NASTY: "MIT & <b>"})
    (tmp_path / "release" / "model").mkdir(parents=True)
    write_board(run, tmp_path / "release")
    text = (tmp_path / "release" / "board.html").read_text(encoding="utf-8")
    assert "CC-BY-4.0" in text and "MIT &amp; &lt;b&gt;" in text and text.count("The licence of the data source") == 2
    assert "model: all weights" in text and "small added weights" not in text


def test_hours_are_those_of_each_start_with_its_own_processes(run: Path) -> None:
    (run / "goodput.json").unlink()
    text = page(run)
    assert f"{(3600 * 4 + 1523.4 * 8) / 3600:.3f} GPU-hours" in text and "4 x NVIDIA H800, then 8 x NVIDIA H800" in text


@pytest.mark.parametrize(("also", "said"), [(0, "kept"), (3, "kept, but for 3 that a held-out file has as they are"), (12, "left out of training")])
def test_repeats_that_are_only_reported_may_have_been_left_out(run: Path, also: int, said: str) -> None:
    """Rows of a held-out file itself are never trained on, whatever is asked."""
    account = json.loads((run / "manifest.json").read_text())["account"]
    account["duplicates"]["done"] = "report"
    account["sources"][CHINESE]["also_held_out"] = also
    change(run / "manifest.json", account=account)
    assert re.search(rf"; these were <span[^>]*>{said}<", page(run))


def test_a_stage_that_was_not_what_was_read_is_named(run: Path) -> None:
    assert "equal hashes" in page(run)
    change(run.parent / "onc_sft-0c77d0" / "manifest.json", outputs={"model/model.safetensors": HASHES["other"]})
    text = page(run)
    assert "equal hashes" not in text and text.count("differs: what was read is not what this run made") == 3


def test_a_stage_that_began_from_a_release_is_followed_to_its_run(run: Path) -> None:
    """Released in another form than the run's own model: the hashes are those of the release."""
    earlier = run.parent / "onc_sft-0c77d0"
    manifest = json.loads((run / "manifest.json").read_text())
    place = str(earlier / "release" / "model" / "model.safetensors")
    atomic.write_json(run / "manifest.json", {**manifest, "weights": {place: HASHES["rows"]}})
    (earlier / "release").mkdir()
    atomic.write_json(earlier / "release" / "release.json", {"files": {"model/model.safetensors": HASHES["rows"]}})
    config = run / "attempts" / "1" / "config.yaml"
    config.write_text(config.read_text(encoding="utf-8").replace(str(earlier / "model"), str(earlier / "release" / "model")), encoding="utf-8")
    text = page(run)
    assert "equal hashes" in text and "0  Qwen3-8B" in text and "1  onc_sft-0c77d0" in text
    assert re.search(r"Started from</th><td><span[^>]*>onc_sft-0c77d0<", text)


def test_a_run_that_has_only_begun_says_what_is_missing(tmp_path: Path) -> None:
    attempt = RunFolder(tmp_path / "begun").claim()
    atomic.write_file(attempt.config_path, freeze(RunConfig()))
    text = page(tmp_path / "begun")
    assert "this page is a draft" in text and "nothing definite can be signed" in text
    for sentence in ("account of the data is not there", "not looked for", "loss on held-out data was not measured", "Hours were not measured"):
        assert sentence in text
    assert {shown for origin, shown in figures(text) if ".json:" in origin and "exit.json" not in origin} == set()


def test_a_folder_without_an_attempt_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="expected the folder of a run that has started"):
        write_board(tmp_path, tmp_path)


def test_both_are_written_by_the_command_line(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["runs", "show", run.name, "--board", "--paper", f"run.dir={run.parent}"]) == 0
    assert "board.html" in capsys.readouterr().out
    assert (run / "board.html").stat().st_mode & 0o777 == 0o600 and (run / "paper" / "methods.md").is_file()
