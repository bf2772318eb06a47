"""methods.md: what a methods section needs, generated from configuration, manifest and account with their exact values.

Citations are written as `[@key]` (pandoc), the works are in references.bib. The last section says which file and key
each value is from. A sentence whose facts are missing is not written; what is missing is listed.
"""

from __future__ import annotations

import re

from train.board import SECTIONS
from train.board.data import licence
from train.board.section import Words
from train.cards import code
from train.dossier import MANIFEST, RESULT, THIS, Dossier, Figure, model_name
from train.paper.objective_words import objective_words

_ENGINES = {"fsdp2": ("fully sharded data parallelism", "fsdp"), "ddp": ("data parallelism", "")}
_OWN_PACKS = ("held_out", "general_text")


class Methods:
    """The text as it is written: paragraphs, works cited, origins of values."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.cited: list[str] = []
        self.origins: dict[str, str] = {}

    def heading(self, text: str) -> None:
        """Begins a section."""
        self.lines += [f"## {text}", ""]

    def paragraph(self, *sentences: Words) -> None:
        """Adds a paragraph; the figures in it go into the list of origins."""
        self.lines += [" ".join(self._sentence(sentence) for sentence in sentences), ""]

    def cite(self, *keys: str) -> str:
        """Returns a citation, and notes the works."""
        self.cited += keys
        return f"[{'; '.join(f'@{key}' for key in keys)}]"

    def _sentence(self, sentence: Words) -> str:
        for part in sentence:
            if isinstance(part, Figure) and part.origin:
                self.origins[part.origin] = part.text
        return "".join(as_markdown(part.text) if isinstance(part, Figure) else part for part in sentence)


def as_markdown(text: str) -> str:
    """Returns a value as pandoc's Markdown shows it, character for character; `_` inside a word needs nothing."""
    return re.sub(r"[\\`*\[\]<>@$^~|#&]|(?<!\w)_|_(?!\w)", r"\\\g<0>", " ".join(text.split()))


def write_methods(dossier: Dossier) -> tuple[str, list[str]]:
    """Returns the text, and the keys of the works it cites."""
    text = Methods()
    text.lines += [f"# Methods: {as_markdown(dossier.name)}", ""]
    for part in (_data, _model, _objective, _optimisation, _evaluation, _compute, _repeat, _missing):
        part(text, dossier)
    text.heading("Where the values are from")
    text.lines += [f"- {as_markdown(value)}: {code(origin)}" for origin, value in text.origins.items()]
    return "\n".join(text.lines) + "\n", text.cited


def _data(text: Methods, dossier: Dossier) -> None:
    account, origin = dossier.account, dossier.account_origin
    if not account:
        return
    text.heading("Data")
    sources = []
    for name, one in account["sources"].items():
        stated = licence(dossier, name, one)[0] or "licence not stated"
        sources.append(f"{name} ({one['rows']:,} rows, {one['tokens']:,} tokens, {stated})")
    text.paragraph(
        ("Sources of the training data: ", Figure("; ".join(sources), f"{origin}.sources"), "."),
        (
            Figure(f"{account['documents']:,}", f"{origin}.documents"),
            " documents were learned and ",
            Figure(f"{account['held_out']:,}", f"{origin}.held_out"),
            " held out",
            *_split(dossier),
            ".",
        ),
        (
            "They hold ",
            Figure(f"{account['tokens']:,}", f"{origin}.tokens"),
            " tokens, of which ",
            Figure(f"{account['supervised']:,}", f"{origin}.supervised"),
            " are learned, packed into ",
            Figure(f"{account['packed_rows']:,}", f"{origin}.packed_rows"),
            " rows of ",
            Figure(f"{account['sequence_length']:,}", f"{origin}.sequence_length"),
            " tokens (",
            Figure(f"{account['fill']:.1%}", f"{origin}.fill"),
            " full); documents in a row do not see each other.",
        ),
        *_gates(dossier),
    )


def _split(dossier: Dossier) -> Words:
    """Returns by what the data was split, and what was counted on both sides where the account has counted it."""
    account, origin = dossier.account, dossier.account_origin
    if not account["held_out"]:
        return ()
    by = Figure(str(account.get("group_by") or "content"), f"{origin}.group_by")
    proof = account.get("split")
    shared = (", with ", Figure(f"{proof['on_both_sides']:,}", f"{origin}.split.on_both_sides"), " groups on both sides") if proof else ()
    return (", split by ", by, *shared)


def _gates(dossier: Dossier) -> tuple[Words, ...]:
    """Returns what was done against leaks and for privacy."""
    account, origin = dossier.account, dossier.account_origin
    found: list[Words] = []
    if repeats := account.get("duplicates"):
        near = Figure(f"{repeats['similarity']:g}", f"{origin}.duplicates.similarity")
        count = Figure(f"{repeats['exact'] + repeats['near']:,}", f"computed from {origin}.duplicates: exact + near")
        found.append(
            (
                "Training rows that repeat held-out rows exactly or with a Jaccard similarity of at least ",
                near,
                " were looked for: ",
                count,
                " found (",
                Figure(str(repeats["done"]), f"{origin}.duplicates.done"),
                ").",
            )
        )
    if leaks := account.get("contamination"):
        items = Figure(f"{leaks['items']:,}", f"{origin}.contamination.items")
        rows = Figure(f"{leaks['rows']:,}", f"{origin}.contamination.rows")
        found.append(
            (
                "Training rows were searched for ",
                items,
                " evaluation items: ",
                rows,
                " rows held one (",
                Figure(str(leaks["done"]), f"{origin}.contamination.done"),
                ").",
            )
        )
    if account.get("privacy", "off") != "off":
        total = sum(sum(one.get("identifiers", {}).values()) for one in account["sources"].values())
        count = Figure(f"{total:,}", f"computed from {origin}.sources.*.identifiers: their sum")
        found.append(
            (
                "Identifiers of people were searched for by rules: ",
                count,
                " found (",
                Figure(str(account["privacy"]), f"{origin}.privacy"),
                ").",
            )
        )
    return tuple(found)


def _model(text: Methods, dossier: Dossier) -> None:
    text.heading("Model")
    base = dossier.section("model").get("path")
    adapter = dossier.section("adapter")
    name = Figure(model_name(str(base)), f"{dossier.config_origin}: model.path") if base else "random weights"
    sentences: list[Words] = [("Training started from ", name, ".")]
    if adapter.get("name") == "lora":
        works = ["lora", *(key for key in ("dora", "rslora") if adapter.get(key))]
        sentences.append(
            (
                "Low-rank adapters of rank ",
                dossier.setting("adapter.rank"),
                " with alpha ",
                dossier.setting("adapter.alpha"),
                " and dropout ",
                dossier.setting("adapter.dropout"),
                " were trained on ",
                Figure(
                    ", ".join(adapter.get("target_modules") or []), f"{dossier.config_origin}: adapter.target_modules"
                ),
                f" {text.cite(*works)}.",
            )
        )
    else:
        sentences.append(("All parameters were trained.",))
    if dossier.section("model").get("router_balance"):
        sentences.append(
            (
                "The experts' balance loss has weight ",
                dossier.setting("model.router_balance"),
                f" {text.cite('balance')}.",
            )
        )
    text.paragraph(*sentences)


def _objective(text: Methods, dossier: Dossier) -> None:
    text.heading("Objective")
    sentence, works = objective_words(dossier)
    text.paragraph((*sentence, f" {text.cite(*works)}." if works else "."))


def _optimisation(text: Methods, dossier: Dossier) -> None:
    text.heading("Optimisation")
    of = dossier.setting
    engine = str(dossier.section("engine").get("name"))
    words, work = _ENGINES.get(engine, ("ZeRO data parallelism", "zero") if engine.startswith("zero") else (engine, ""))
    sentences: list[Words] = [
        _optimizer(text, dossier),
        _schedule(text, dossier),
        ("A step takes ", of("training.global_batch_size"), " packed rows."),
        ("Gradients are clipped to a norm of ", of("training.max_grad_norm"), ".")
        if dossier.section("training").get("max_grad_norm")
        else ("Gradients are not clipped.",),
        ("Arithmetic is ", of("training.precision"), "; the seed is ", of("training.seed"), "."),
        (
            "Ranks share the work by ",
            Figure(words, f"{dossier.config_origin}: engine.name"),
            f" {text.cite(work)}." if work else ".",
        ),
    ]
    if dossier.result:
        steps = Figure(f"{dossier.result['steps']:,}", f"{RESULT}: steps")
        tokens = Figure(f"{dossier.result['tokens']:,}", f"{RESULT}: tokens")
        sentences.append(("Training took ", steps, " steps over ", tokens, " tokens."))
    text.paragraph(*sentences)


def _optimizer(text: Methods, dossier: Dossier) -> Words:
    of = dossier.setting
    if dossier.section("optimizer").get("name") != "adamw":
        return ("The optimizer is ", of("optimizer.name"), ".")
    moments: Words = (
        " (beta1 ",
        of("optimizer.beta1"),
        ", beta2 ",
        of("optimizer.beta2"),
        ", epsilon ",
        of("optimizer.eps"),
        ")",
    )
    return (
        "The optimizer is AdamW ",
        text.cite("adamw"),
        *moments,
        " with weight decay ",
        of("optimizer.weight_decay"),
        " of matrices.",
    )


def _schedule(text: Methods, dossier: Dossier) -> Words:
    of, name = dossier.setting, str(dossier.section("lr_scheduler").get("name"))
    rise: Words = (
        "The learning rate rises linearly to ",
        of("optimizer.lr"),
        " (warm-up ",
        of("lr_scheduler.warmup"),
        ")",
    )
    cited = f" {text.cite(name)}" if name in ("cosine", "wsd") else ""
    return (*rise, " and follows a ", of("lr_scheduler.name"), " schedule", f"{cited}.")


def _evaluation(text: Methods, dossier: Dossier) -> None:
    result = dossier.result
    scored = [(file, task) for file, task in dossier.of(THIS) if not task.is_check]
    if result.get("eval_loss") is None and not scored:
        return
    text.heading("Evaluation")
    sentences: list[Words] = []
    if result.get("eval_loss") is not None:
        sentences.append(
            (
                "The released weights are those of step ",
                Figure(f"{result['best_step']:,}", f"{RESULT}: best_step"),
                ", with the lowest held-out loss, ",
                Figure(f"{result['eval_loss']:.4f}", f"{RESULT}: eval_loss"),
                ".",
            )
        )
    # Losses on texts are our own arithmetic; everything else the harness asks.
    by_harness = [(file, task) for file, task in scored if task.pack not in _OWN_PACKS]
    for found, how in (
        (by_harness, f"the language model evaluation harness {text.cite('harness')}" if by_harness else ""),
        ([one for one in scored if one not in by_harness], "a pass over the texts"),
    ):
        if found:
            names = ", ".join(dict.fromkeys(task.name for _, task in found))
            files = ", ".join(dict.fromkeys(file.file for file, _ in found))
            sentences.append(
                (
                    f"Measured by {how}: ",
                    Figure(names, f"{files}: tasks"),
                    "; values and 95 % intervals are in results.csv.",
                )
            )
    text.paragraph(*sentences)


def _compute(text: Methods, dossier: Dossier) -> None:
    hardware, seconds = dossier.manifest.get("hardware"), dossier.result.get("duration_s")
    if not hardware:
        return
    text.heading("Compute")
    gpus = ", ".join(sorted(set(hardware["gpus"]))) or "no GPU"
    machine = Figure(
        f"{len(hardware['gpus'])} x {gpus}" if hardware["gpus"] else f"{hardware['cpus']} CPU cores",
        f"{MANIFEST}: hardware",
    )
    sentence: Words = ("The machine that finished the run has ", machine)
    if seconds is not None:
        sentence = (*sentence, "; the run took ", Figure(f"{seconds:,.0f} s", f"{RESULT}: duration_s"))
    text.paragraph((*sentence, "."))


def _repeat(text: Methods, dossier: Dossier) -> None:
    manifest = dossier.manifest
    if not manifest:
        return
    text.heading("To repeat it")
    versions = ", ".join(f"{name} {version}" for name, version in manifest["versions"].items())
    text.paragraph(
        ("Code: ", Figure(str(manifest["commit"] or "installed package"), f"{MANIFEST}: commit"), "."),
        ("Versions: ", Figure(versions, f"{MANIFEST}: versions"), "."),
        ("Prepared data: ", Figure(str(manifest["store"]["fingerprint"]), f"{MANIFEST}: store.fingerprint"), "."),
        (
            "The chain of hashes over the rows of every step ends with ",
            Figure(str(manifest["result"]["ledger"]), f"{MANIFEST}: result.ledger"),
            ".",
        ),
        ("SHA-256 of every input, output and source file are in the manifest.",),
    )


def _missing(text: Methods, dossier: Dossier) -> None:
    open_points = [sentence for make in SECTIONS for sentence in make(dossier).missing]
    if open_points:
        text.heading("Not measured or not stated")
        text.lines += [*(f"- {as_markdown(sentence)}" for sentence in open_points), ""]
