"""Data that cannot be used, and what is said of it, word for word: cases of tests/unit/test_bad_inputs.py."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma

import pyarrow as pa
import pyarrow.parquet as pq

# In every row's texts; no message may show it.
SECRET = "Kwan-Mei-Ling-7731"
MIB = 1 << 20
FIRST = "expected messages (chat), conversations (sharegpt), instruction+output (alpaca), text (text); or map them with columns"
EMPTY = ("file  (whole file)", "no rows", "the file is empty; leave it out")
DAMAGED = "copy it again, or test it with its own tool"


def chat(*turns: tuple[str, object], **more: object) -> str:
    """Returns one JSON line of a chat."""
    return json.dumps({"messages": [{"role": role, "content": content} for role, content in turns], **more})


ASKED = ("user", f"Who is {SECRET}?")
GOOD = chat(ASKED, ("assistant", f"{SECRET} is a patient."))


Bad = list[tuple[str, str, str]]
LINES: dict[str, tuple[str, str | bytes, Bad]] = {
    "cut off in a text": (
        "a.jsonl",
        f"{GOOD}\n{GOOD[:-10]}",
        [("line  2   (whole line)", f"not JSON, column {GOOD.rindex(SECRET)}", "a string is not closed")],
    ),
    "cut off between values": (
        "a.jsonl",
        f'{GOOD}\n{{"messages": [\n',
        [("line  2   (whole line)", "not JSON, column 15", "the line ends too early; is the file cut off?")],
    ),
    "no JSON": ("a.jsonl", f"{GOOD}\n{SECRET}\n", [("line  2   (whole line)", "not JSON, column 1", "a value is missing")]),
    "two objects on a line": (
        "a.jsonl",
        f"{GOOD}{GOOD}\n",
        [("line  1   (whole line)", f"not JSON, column {len(GOOD) + 1}", "more follows after the object; one row a line")],
    ),
    "single quotes": (
        "a.jsonl",
        "{'messages': []}",
        [("line  1   (whole line)", "not JSON, column 2", "a key in double quotes is expected")],
    ),
    "a raw tab in a text": (
        "a.jsonl",
        '{"messages": "a\tb"}',
        [("line  1   (whole line)", "not JSON, column 16", "a line break or tab inside a string must be written \\n or \\t")],
    ),
    "NaN": (
        "a.jsonl",
        '{"messages": NaN}',
        [("line  1   (whole line)", "not JSON: NaN", "JSON has no such number; use null or a text")],
    ),
    "a key given twice": (
        "a.jsonl",
        '{"messages": 1, "messages": 2}',
        [("line  1   messages", "given twice in one object", "keep one of them")],
    ),
    "nested too deeply": (
        "a.jsonl",
        "[" * 100_000,
        [("line  1   (whole line)", "nested too deeply", "a row is an object of a few levels")],
    ),
    "not UTF-8": (
        "a.jsonl",
        f"{GOOD}\n".encode() + b'{"messages": "\xff"}',
        [("line  2   (whole line)", "not UTF-8, byte 15", "save the file as UTF-8")],
    ),
    "half a character": (
        "a.jsonl",
        GOOD.replace("Who", "\\ud800"),
        [("line  1   (whole row)", "half of a surrogate pair (\\ud800-\\udfff)", "write the whole character")],
    ),
    "a line of 50 MB": (
        "a.jsonl",
        f"{GOOD}\n".encode() + b'{"messages": "' + b"x" * (50 * MIB) + f'"}}\n{GOOD}\n'.encode(),
        [("line  2   (whole line)", "longer than 32 MiB", "is the file one line without line ends? write one row a line")],
    ),
    "a list as a row": (
        "a.jsonl",
        "[1, 2]",
        [("line  1   (whole line)", "a list, not an object", 'a row looks like {"messages": [...]}')],
    ),
    "a turn that is a text": (
        "a.jsonl",
        '{"messages": ["hello"]}',
        [("line  1   messages[0]", "text, not an object", "expected one turn")],
    ),
    "messages that are a text": (
        "a.jsonl",
        json.dumps({"messages": SECRET}),
        [("line  1   messages", "text, not a list", "expected a list, or JSON of one")],
    ),
    "no turns": ("a.jsonl", '{"messages": []}', [("line  1   messages", "an empty list", "leave this row out")]),
    "empty content": (
        "a.jsonl",
        chat(ASKED, ("assistant", " \n")),
        [("line  1   messages[1].content", "empty", "fill it or leave this turn out")],
    ),
    "content that is a number": (
        "a.jsonl",
        chat(ASKED, ("assistant", 42)),
        [("line  1   messages[1].content", "a number, not text", "expected a text in quotes")],
    ),
    "content that is an image": (
        "a.jsonl",
        chat(("user", [{"type": "image_url", "image_url": {"url": SECRET}}]), ("assistant", "yes")),
        [("line  1   messages[0].content[0]", 'a part of type "image_url"', "only text parts can be learned")],
    ),
    "no content": (
        "a.jsonl",
        '{"messages": [{"role": "user"}]}',
        [("line  1   messages[0].content", "missing", "every turn needs its text")],
    ),
    "an unknown role": (
        "a.jsonl",
        chat(ASKED, ("assistent", "yes")),
        [("line  1   messages[1].role", '"assistent": no such role', "use system, user, assistant, tool")],
    ),
    "a role that is a text of the row": (
        "a.jsonl",
        chat(ASKED, (f"the answer of {SECRET}", "yes")),
        [("line  1   messages[1].role", f"a text of {len(SECRET) + 14} characters: no such role", "use system, user, assistant, tool")],
    ),
    "no assistant turn": (
        "a.jsonl",
        chat(ASKED),
        [("line  1   messages", "no assistant turn", "nothing in this row can be learned")],
    ),
    "two system messages": (
        "a.jsonl",
        chat(("system", "a"), ("system", "b"), ASKED, ("assistant", "yes")),
        [("line  1   messages[1].role", "a second system message", "put one system message at the start")],
    ),
    "a system column beside a system message": (
        "a.jsonl",
        chat(("system", "a"), ASKED, ("assistant", "yes"), system=SECRET),
        [("line  1   system", "a second system message", "the turns have one already; keep one of them")],
    ),
    "a turn that says it twice": (
        "a.jsonl",
        json.dumps({"conversations": [{"from": "human", "value": SECRET}, {"from": "gpt", "value": "a", "content": "b"}]}),
        [("line  1   conversations[1].content", "beside value", "one turn says it twice; keep one of the two")],
    ),
    "a late system message": (
        "a.jsonl",
        chat(ASKED, ("system", "b"), ("assistant", "yes")),
        [("line  1   messages[1].role", "a system message that is not the first", "put one system message at the start")],
    ),
    "an end-of-turn token in a text": (
        "a.jsonl",
        chat(ASKED, ("assistant", "yes<|im_end|>no")),
        [("line  1   (whole row)", "<|im_end|> inside an assistant's text", "remove it; the template writes it")],
    ),
    "too long": (
        "a.jsonl",
        chat(("user", "z" * 3000), ("assistant", "yes")),
        [
            (
                "line  1   (whole row)",
                "3,022 tokens, 2,048 fit",
                "data.overlength=truncate, drop or split; or data.sequence_length",
            )
        ],
    ),
    "two schemas in one file": (
        "a.jsonl",
        f"{GOOD}\n" + json.dumps({"instruction": SECRET, "output": "b"}),
        [("line  2   messages", "missing", "this row has: instruction, output")],
    ),
    "Alpaca without an answer": (
        "a.jsonl",
        json.dumps({"instruction": SECRET, "output": ""}),
        [("line  1   output", "empty", "fill it or leave this turn out")],
    ),
    "ShareGPT with an unknown speaker": (
        "a.jsonl",
        json.dumps({"conversations": [{"from": "doctor", "value": SECRET}]}),
        [
            (
                "line  1   conversations[0].from",
                '"doctor": no such role',
                "use human, gpt, system, function_call, observation",
            )
        ],
    ),
    "plain text for sft": (
        "a.txt",
        f"{SECRET}\n",
        [("line  1   (whole row)", "plain text has no assistant turn", "objective=cpt learns plain text")],
    ),
    "CSV with a field too few": (
        "a.csv",
        f"instruction,output\n{SECRET}\n",
        [("line  2   (whole line)", "1 fields, the header has 2", "quote fields that hold the separator")],
    ),
    "CSV not UTF-8": (
        "a.csv",
        b"instruction,output\na,b\n\xe9,b\nc,d\n",
        [("line  3   (whole line)", "not UTF-8", "save the file as UTF-8")],
    ),
    "a JSON array with a number in it": (
        "a.json",
        f"[{GOOD},\n7]",
        [("line  2   (whole line)", "a number, not an object", 'a row looks like {"messages": [...]}')],
    ),
}


def parquet(rows: list[dict[str, object]]) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(rows), sink)
    return bytes(sink.getvalue())


def broken_gzip() -> bytes:
    content = bytearray(gzip.compress("\n".join(chat(ASKED, ("assistant", str(i))) for i in range(99)).encode()))
    content[12:40] = b"\xff" * 28
    return bytes(content)


HEADERLESS = f"{SECRET} came in,with a cough\n".encode()
FILES: dict[str, tuple[str, bytes, tuple[str, str, str]]] = {
    "empty": ("a.jsonl", b"", EMPTY),
    "blank lines": ("a.jsonl", b"\n \n", EMPTY),
    "an empty list": ("a.json", b"[]", EMPTY),
    "CSV of a header": ("a.csv", b"instruction,output\n", EMPTY),
    "Parquet of no bytes": ("a.parquet", b"", ("file  (whole file)", "damaged or unreadable (ArrowInvalid)", DAMAGED)),
    "unknown columns": (
        "a.jsonl",
        b'{"question": "x", "answer": "y"}',
        ("file  (whole file)", "format not recognised: answer, question", FIRST),
    ),
    "CSV without the columns": ("a.csv", b"a,b\n1,2\n", ("file  (whole file)", "format not recognised: a, b", FIRST)),
    "CSV without a header": (
        "a.csv",
        HEADERLESS * 2,
        (
            "file  (whole file)",
            f"format not recognised: (a name of {len(SECRET) + 8} characters), (a name of 12 characters)",
            FIRST,
        ),
    ),
    "Parquet without the columns": (
        "a.parquet",
        parquet([{"note": SECRET}]),
        ("file  (whole file)", "format not recognised: note", FIRST),
    ),
    "CSV with a column twice": (
        "a.csv",
        b"instruction,output,output\na,b,c\n",
        ("line  1   (whole file)", "two columns named output", "give each column its own name"),
    ),
    "CSV with an open quote": (
        "a.csv",
        b'instruction,output\na,b\n"c,d\ne,f\n',
        ("line  3   (whole file)", "not CSV (unexpected end of data)", "check the quotes"),
    ),
    "a JSON array cut off": (
        "a.json",
        f"[{GOOD},\n{GOOD[:-10]}".encode(),
        ("line  2   (whole file)", f"not JSON, column {GOOD.rindex(SECRET)}", "a string is not closed"),
    ),
    "a JSON array not closed": (
        "a.json",
        f"[{GOOD}".encode(),
        ("line  1   (whole file)", "the list of rows is not closed", "is the file cut off?"),
    ),
    "a JSON array not UTF-8": (
        "a.json",
        b'[{"messages":\n"\xff"}]',
        ("line  2   (whole file)", "not UTF-8, byte 16", "save the file as UTF-8"),
    ),
    "bad Parquet": ("a.parquet", b"PAR1 or not", ("file  (whole file)", "damaged or unreadable (ArrowInvalid)", DAMAGED)),
    "Parquet cut off": (
        "a.parquet",
        parquet([{"text": "x"}])[:-9],
        ("file  (whole file)", "damaged or unreadable (ArrowInvalid)", DAMAGED),
    ),
    "not gzip": ("a.jsonl.gz", GOOD.encode(), ("file  (whole file)", "damaged or unreadable (BadGzipFile)", DAMAGED)),
    "gzip cut off": (
        "a.jsonl.gz",
        gzip.compress(GOOD.encode())[:-9],
        ("file  (whole file)", "damaged or unreadable (EOFError)", DAMAGED),
    ),
    "gzip broken inside": ("a.jsonl.gz", broken_gzip(), ("file  (whole file)", "damaged or unreadable (zlib error)", DAMAGED)),
    "not bzip2": ("a.jsonl.bz2", b"zzz", ("file  (whole file)", "damaged or unreadable (OSError)", DAMAGED)),
    "bzip2 cut off": (
        "a.jsonl.bz2",
        bz2.compress(GOOD.encode())[:-9],
        ("file  (whole file)", "damaged or unreadable (EOFError)", DAMAGED),
    ),
    "xz cut off": (
        "a.jsonl.xz",
        lzma.compress(GOOD.encode())[:-9],
        ("file  (whole file)", "damaged or unreadable (EOFError)", DAMAGED),
    ),
    "not zstandard": ("a.jsonl.zst", b"zzz", ("file  (whole file)", "damaged or unreadable (OSError)", DAMAGED)),
}


SENTENCES: dict[str, tuple[dict[str, str], list[str], str]] = {
    "an unknown suffix": (
        {"a.docx": "x"},
        ["data=a.docx"],
        "a.docx: unknown kind of file .docx; expected .jsonl, .ndjson, .json, .parquet, .csv, .tsv, .txt, .text, .md, "
        "or one of these with .gz, .bz2, .xz, .zst",
    ),
    "no suffix": (
        {"notes": "x"},
        ["data=notes"],
        "notes: unknown kind of file (no suffix); expected .jsonl, .ndjson, .json, .parquet, .csv, .tsv, .txt, .text, .md, "
        "or one of these with .gz, .bz2, .xz, .zst",
    ),
    "a folder without data": (
        {"folder/readme.pdf": "x"},
        ["data=folder"],
        "folder: no data file in this folder; expected .jsonl, .ndjson, .json, .parquet, .csv, .tsv, .txt, .text, .md "
        "or a saved data set",
    ),
    "a field that the format does not have": (
        {"a.jsonl": GOOD},
        ["data.sources.a.path=a.jsonl", "data.sources.a.format=chat", "data.sources.a.columns.turns=messages"],
        "data.sources.a.columns: turns is no field of the format chat; it has messages, system, tools, role, content",
    ),
    "one group to split": (
        {"a.jsonl": GOOD},
        ["data=a.jsonl", "data.validation=5%"],
        "data.validation: 1 group cannot be split in two; give more rows, data.validation=PATH or none",
    ),
    "everything is held out": (
        {"a.jsonl": GOOD, "v.jsonl": GOOD},
        ["data=a.jsonl", "data.validation=v.jsonl", "data.duplicates=drop"],
        "data.validation: every training document is held out too; nothing is left to learn from",
    ),
    "a patient on both sides": (
        {
            "a.jsonl": chat(ASKED, ("assistant", "one"), patient=7) + "\n" + chat(ASKED, ("assistant", "x"), patient=8),
            "v.jsonl": chat(ASKED, ("assistant", "two"), patient=7),
        },
        ["data=a.jsonl", "data.validation=v.jsonl", "data.group_by=patient"],
        "data.validation: 1 values of patient are held out and trained on too (training lines 1); keep each on one side",
    ),
    "everything allowed to be bad is": (
        {"a.jsonl": "x\ny\n"},
        ["data=a.jsonl", "data.max_bad_rows=2"],
        "data: no document is left to learn from; see the rows that were left out",
    ),
    "everything is dropped": (
        {"a.jsonl": chat(("user", "z" * 3000), ("assistant", "yes"))},
        ["data=a.jsonl", "data.overlength=drop"],
        "data: no document is left to learn from; see the rows that were left out",
    ),
}
