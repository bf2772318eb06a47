"""What `aisc train` says to data that cannot be used: exit code 2, every bad row of every file in one screen, word for
word, never a row's text; and nothing half-written.

The cases are in tests/golden/bad_inputs.py: bytes of a file, and the lines that name what is wrong with it (place, key,
problem, remedy).
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest

from cli.main import main
from tests.golden.bad_inputs import ASKED, FILES, GOOD, LINES, SECRET, SENTENCES, chat
from tests.kills.lab import make_chats, make_tokenizer

Screen = tuple[int, str]
Aisc = Callable[..., Screen]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tokenizer with a chat template."""
    folder = tmp_path_factory.mktemp("inputs")
    make_tokenizer(folder / "tokenizer", make_chats(folder / "chats.jsonl", 40))
    return folder / "tokenizer"


@pytest.fixture
def aisc(tokenizer: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Aisc:
    """Runs `aisc VERB ...` on data in an empty folder; returns the exit code and what was printed, as lines."""
    monkeypatch.chdir(tmp_path)
    for name in ("AISC_RUNS", "AISC_STORES"):
        monkeypatch.delenv(name, raising=False)

    def run(verb: str, *options: str) -> Screen:
        model = ["model=tiny_llama", f"model.tokenizer={tokenizer}", "data.validation=none", "data.workers=2"]
        code = main([verb, *model, *options, *(["--dry-run"] if verb == "train" else [])])
        said = capsys.readouterr()
        return code, said.out + said.err

    return run


def refusal(aisc: Aisc, *options: str) -> list[str]:
    """Returns the lines of a refusal, blanks at line ends left out. Nothing is left behind and no text is shown."""
    before = set(Path().rglob("*"))
    code, said = aisc("train", *options)
    assert code == 2, said
    assert SECRET not in said
    left = set(Path().rglob("*")) - before
    assert left <= {Path("stores")} and not list(Path("stores").glob("*"))
    return [line.rstrip().removeprefix("  ") for line in said.removeprefix("error: ").splitlines()]


def advice(options: list[str], tokenizer: Path, num_bad: int, now: str = "") -> list[str]:
    """Returns the two lines under a list of bad rows."""
    typed = ["model=tiny_llama", f"model.tokenizer={tokenizer}", "data.validation=none", "data.workers=2", *options]
    return [
        f"Nothing was written. Fix these lines, or go on without them, counted:  data.max_bad_rows={num_bad}{now}",
        f"All, as a table without their text:  aisc inspect {shlex.join(typed)} --bad-rows bad.csv",
    ]


def cells(line: str) -> list[str]:
    """Returns the columns of a line of the table."""
    return re.split(" {2,}", line.strip())


@pytest.mark.parametrize("name", LINES)
def test_a_bad_row(name: str, aisc: Aisc, tokenizer: Path) -> None:
    file, content, expected = LINES[name]
    Path(file).write_bytes(content if isinstance(content, bytes) else content.encode())
    first, *rest = refusal(aisc, f"data={file}")
    assert re.fullmatch(rf"{len(expected)} of [123] rows in {re.escape(file)} cannot be used", first)
    table = rest[1 : 1 + len(expected)]
    assert table == [f"  {place}   {problem}   {remedy}" for place, problem, remedy in expected]
    assert rest[1 + len(expected) :] == ["", *advice([f"data={file}"], tokenizer, len(expected))]


@pytest.mark.parametrize("allowed", [0, 100])
@pytest.mark.parametrize("name", FILES)
def test_a_bad_file(name: str, allowed: int, aisc: Aisc) -> None:
    """A file that cannot be read to its end is never a counted loss: nobody knows how many rows it would be."""
    file, content, expected = FILES[name]
    Path(file).write_bytes(content)
    lines = refusal(aisc, f"data={file}", f"data.max_bad_rows={allowed}")
    assert lines[0] == f"{file} cannot be used"
    assert cells(lines[2]) == [cell for part in expected for cell in cells(part)]
    assert lines[3:] == ["", "Nothing was written. Fix these files, or leave them out of the data."]


@pytest.mark.parametrize("name", SENTENCES)
def test_data_that_leaves_nothing(name: str, aisc: Aisc) -> None:
    files, options, expected = SENTENCES[name]
    for file, content in files.items():
        Path(file).parent.mkdir(exist_ok=True)
        Path(file).write_text(content)
    assert refusal(aisc, *options) == [expected]


def test_group_by_a_column_that_rows_lack(aisc: Aisc, tokenizer: Path) -> None:
    rows = [chat(ASKED, ("assistant", "a"), patient="p1"), GOOD, chat(ASKED, ("assistant", "b"), patient=[1])]
    Path("a.jsonl").write_text("\n".join(rows))
    options = ["data=a.jsonl", "data.group_by=patient"]
    assert refusal(aisc, *options) == [
        "2 of 3 rows in a.jsonl cannot be used",
        "",
        f"  line  2   patient   {'missing':<36}   every row needs it: data.group_by",
        "  line  3   patient   a list, not a text or a whole number   expected a key: data.group_by",
        "",
        *advice(options, tokenizer, 2),
    ]


def test_all_files_in_one_pass(aisc: Aisc, tokenizer: Path) -> None:
    """Three sources, a held-out file among them, each with its mistake: one screen."""
    Path("a.jsonl").write_text(f"{GOOD}\n{chat(ASKED)}\n")
    Path("b.csv").write_text(f"instruction,output\n{SECRET}\n")
    Path("v.jsonl").write_text(f"{SECRET}\n{GOOD}\n")
    options = ["data.sources.a.path=a.jsonl", "data.sources.b.path=b.csv", "data.validation=v.jsonl"]
    assert refusal(aisc, *options) == [
        "3 of 5 rows in 3 files cannot be used",
        "",
        "  a.jsonl",
        "  line  2   messages       no assistant turn            nothing in this row can be learned",
        "  b.csv",
        "  line  2   (whole line)   1 fields, the header has 2   quote fields that hold the separator",
        "  v.jsonl",
        "  line  1   (whole line)   not JSON, column 1           a value is missing",
        "",
        *advice(options, tokenizer, 3),
    ]


def test_a_row_and_a_file(aisc: Aisc) -> None:
    """Where a file as a whole is bad, allowing bad rows would not help, so it is not offered."""
    Path("a.jsonl").write_text(f"{GOOD}\n{chat(ASKED)}\n")
    Path("b.jsonl").write_text("")
    assert refusal(aisc, "data=*.jsonl", "data.max_bad_rows=9") == [
        "2 of 2 rows in 2 files cannot be used",
        "",
        "  a.jsonl",
        "  line  2   messages       no assistant turn   nothing in this row can be learned",
        "  b.jsonl",
        "  file      (whole file)   no rows             the file is empty; leave it out",
        "",
        "Nothing was written. Fix these files, or leave them out of the data.",
    ]


def test_the_first_20_and_the_rest_counted(aisc: Aisc, tokenizer: Path) -> None:
    """Of 60 bad rows 20 are shown, each reason among them, the others counted by reason."""
    kinds = [SECRET, chat(ASKED), chat((f"{SECRET} role", "x"), ("assistant", "y"))]
    Path("a.jsonl").write_text("\n".join([GOOD, *kinds * 20]))
    lines = refusal(aisc, "data=a.jsonl")
    assert lines[0] == "60 of 61 rows in a.jsonl cannot be used"
    assert lines[2:5] == [
        f"  line  2    (whole line)       {'not JSON, column 1':<37}   a value is missing",
        f"  line  3    messages           {'no assistant turn':<37}   nothing in this row can be learned",
        "  line  4    messages[0].role   a text of 23 characters: no such role   use system, user, assistant, tool",
    ]
    assert [line.split()[1] for line in lines[2:22]] == [str(number) for number in range(2, 22)]
    assert lines[22:] == [
        "",
        "  and 40 more:  14 x no such role,  13 x not JSON,  13 x no assistant turn",
        "",
        *advice(["data=a.jsonl"], tokenizer, 60),
    ]


def test_a_rare_reason_is_among_those_shown(aisc: Aisc) -> None:
    Path("a.jsonl").write_text("\n".join([GOOD, *["x"] * 50, chat(ASKED)]))
    lines = refusal(aisc, "data=a.jsonl")
    assert cells(lines[21]) == ["line", "52", "messages", "no assistant turn", "nothing in this row can be learned"]
    assert lines[23] == "  and 31 more:  31 x not JSON"


def test_a_large_file_is_judged_alike_by_several_processes(aisc: Aisc, tokenizer: Path) -> None:
    """6 MB go to reading processes; a CSV's bad records travel to them as they are."""
    row = f'"{SECRET} {"word " * 200}",yes\n'
    Path("a.csv").write_text("instruction,output\n" + row * 6000 + "lonely\n")
    options = ["data=a.csv", "data.limit=6001"]
    assert refusal(aisc, *options) == [
        "1 of 6,001 rows in a.csv cannot be used",
        "",
        "  line  6,002   (whole line)   1 fields, the header has 2   quote fields that hold the separator",
        "",
        *advice(options, tokenizer, 1),
    ]


def test_bad_rows_left_out_are_counted(aisc: Aisc, tokenizer: Path) -> None:
    rows = [chat(ASKED, ("assistant", f"{i}")) for i in range(8)]
    Path("a.jsonl").write_text("\n".join([SECRET, *rows, chat(ASKED)]))
    lines = refusal(aisc, "data=a.jsonl", "data.max_bad_rows=1")
    assert lines[-2:] == advice(["data=a.jsonl", "data.max_bad_rows=1"], tokenizer, 2, now=" (now 1)")
    code, said = aisc("prepare", "data=a.jsonl", "data.max_bad_rows=2")
    assert code == 0
    assert "10 chats -> 8 train" in said
    assert "2 unusable rows left out (data.max_bad_rows)" in said
    (account,) = Path("stores").glob("*/account.json")
    assert json.loads(account.read_text())["sources"]["train"]["bad"] == {"not JSON": 1, "no assistant turn": 1}


def test_bom_line_ends_and_blank_lines_are_no_mistakes(aisc: Aisc) -> None:
    rows = [chat(ASKED, ("assistant", f"{i}")) for i in range(8)]
    Path("a.jsonl").write_bytes(b"\xef\xbb\xbf" + "\r\n".join([*rows, ""]).encode())
    Path("b.jsonl").write_text("\n\n".join(rows))
    Path("c.json").write_bytes(b"\xef\xbb\xbf" + f"[{','.join(rows)}]".encode())
    Path("d.csv").write_bytes("\ufeffinstruction,output\r\n".encode() + "".join(f"q{i},a\r\n" for i in range(8)).encode())
    code, said = aisc("prepare", "data=[abcd].*")
    assert code == 0, said
    assert "32 chats -> 32 train" in said
    assert "unusable" not in said


def test_a_store_that_cannot_be_made(aisc: Aisc) -> None:
    Path("a.jsonl").write_text(GOOD)
    Path("taken").write_text("a file")
    assert aisc("prepare", "data=a.jsonl", "data.store=taken/stores") == (
        2,
        "error: data.store=taken/stores: cannot be made (Not a directory); give another folder\n",
    )
