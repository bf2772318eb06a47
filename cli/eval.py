"""`aisc eval`: a run, a checkpoint or a model folder scored: held-out loss, tasks, a second model, forgetting."""

from __future__ import annotations

import dataclasses
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cli.eval_screen import show, show_comparison, show_forgetting, show_missing
from cli.screens import console, split_values
from configs.errors import RunFailed, UserError
from configs.reward import is_classifier, no_writer
from configs.runfolder import RunFolder, runs_dir
from launch.runs import find_run

if TYPE_CHECKING:
    import torch

    from configs.schema import RunConfig
    from train.eval_target import Target
    from train.evaluation import Asked
    from train.packs import Task

DEVICES = ("cpu", "cuda")
DEFAULT_ROWS = 4
VALUES = ("--on", "--device", "--rows", "--against", "--limit", "--forgetting", "--base", "--output", "run.dir")
EXIT_DONE = 0


def main(arguments: list[str]) -> int:
    """Runs the verb; returns the exit code."""
    options, words = split_values(arguments, values=VALUES, flags=("--samples",))
    if not words:
        raise UserError("aisc eval: expected one RUN, RUN@STEP or model FOLDER, then packs or tasks")
    parent = runs_dir(options.get("run.dir"))
    from cli.eval_target import find_target
    from train.eval_target import output_folder

    target = find_target(words[0], parent)
    on = find_run(options["--on"], parent) if "--on" in options else target.run
    if target.run is not None and is_classifier(target.run.path / "model"):
        raise UserError(no_writer(target.run.path, "aisc eval"))
    config = configuration(on or target.run, options)
    against = second_target(options.get("--against"), config, parent)
    files = {name: path for name, equals, path in (word.partition("=") for word in words[1:]) if equals}
    named = [word for word in words[1:] if "=" not in word]
    from train.packs import choose

    section = config.evaluation
    if not named and not files:
        named, files = list(section.packs), dict(section.tasks)
    tasks, missing = choose(named, files)
    if on is None and not tasks and not section.forgetting:
        raise UserError(f"aisc eval {words[0]}: on which data? --on RUN takes what that run held out; or name packs, tasks, --forgetting FILE")
    asked = make_asked(target, on, config, tasks, files, options)
    command = "aisc eval " + shlex.join(arguments)
    return score_all(target, against, asked, output_folder(target, on, options.get("--output")), command, missing)


def score_all(target: Target, against: Target | None, asked: Asked, folder: Path, command: str, missing: list[Task]) -> int:
    """Measures, compares, writes and shows; returns the exit code.

    Raises:
        RunFailed: the forgetting gate tripped; everything is written and shown.
    """
    from train.evaluation import compare, evaluate
    from train.evaluation_file import write_score

    screen = console()
    first = evaluate(target, asked)
    if against is not None:
        second = evaluate(against, dataclasses.replace(asked, texts=[], base=None))
        first.score.comparisons[second.score.name] = compare(first, second)
        write_score(folder, second.score, command)
    path = write_score(folder, first.score, command)
    show(screen, first.score, asked)
    show_missing(screen, missing)
    if against is not None:
        show_comparison(screen, against.label, first.score.comparisons[second.score.name])
    renew_report(target, folder)
    screen.print(f"  {'written':<12}{path}", soft_wrap=True, markup=False)
    if first.score.forgetting is not None:
        show_forgetting(screen, first.score.forgetting)
        refuse_tripped(first.score.forgetting)
    return EXIT_DONE


def refuse_tripped(found: dict[str, Any]) -> None:
    """Raises RunFailed when the gate tripped, in one sentence for those who see no screen: a chain, a queue."""
    if found["tripped"]:
        raise RunFailed(
            f"the forgetting gate tripped: loss on general text {found['loss_base']:.4f} -> {found['loss']:.4f}, with "
            f"{found['confidence']:.0%} confidence at least {found['low']:+.4f} nats/token; bound {found['bound']:+g}"
        )


def configuration(run: RunFolder | None, options: dict[str, str]) -> RunConfig:
    """Returns the configuration of `run`, or the defaults, with what the options change of `evaluation`."""
    from configs.schema import RunConfig
    from train.frozen import frozen_config

    config = frozen_config(run) if run is not None else RunConfig()
    section = config.evaluation
    if "--forgetting" in options:
        section.forgetting = options["--forgetting"].split(",")
    section.base = options.get("--base", section.base)
    if "--limit" in options:
        section.limit = positive(options, "--limit", 1)
    return config


def second_target(text: str | None, config: RunConfig, parent: Path) -> Target | None:
    """Returns the model of --against; `base` is the one that the run began from."""
    from cli.eval_target import find_target
    from train.eval_target import OTHER, Target, base_of

    if text is None:
        return None
    if text == "base" and not Path(text).exists():
        return Target(OTHER, None, base_of(config))
    return find_target(text, parent)


def make_asked(
    target: Target, on: RunFolder | None, config: RunConfig, tasks: list[Task], files: dict[str, str], options: dict[str, str]
) -> Asked:
    """Returns what is to be measured; every file is read before a model is loaded."""
    from train.eval_target import base_of
    from train.evaluate_folder import file_hashes
    from train.evaluation import Asked, read_tasks

    section = config.evaluation
    rows, hashes = read_tasks(tasks, files, section.limit)
    texts = [Path(path).expanduser() for path in section.forgetting]
    file_hashes(texts)
    return Asked(
        on=on,
        config=config,
        device=chosen_device(options.get("--device")),
        rows=positive(options, "--rows", DEFAULT_ROWS),
        tasks=rows,
        files=hashes,
        texts=texts,
        base=base_of(config) if texts else None,
        with_samples="--samples" in options,
    )


def positive(options: dict[str, str], name: str, default: int) -> int:
    """Returns the whole number of option `name`.

    Raises:
        UserError: it is none, or below 1.
    """
    text = options.get(name, str(default))
    if not text.isdecimal() or int(text) < 1:
        raise UserError(f"{name} {text}: expected 1 or more")
    return int(text)


def chosen_device(name: str | None) -> torch.device:
    """Returns the device of --device, a GPU when there is one and nothing was said.

    Raises:
        UserError: another word, or no GPU here.
    """
    if name is not None and name not in DEVICES:
        raise UserError(f"--device {name}: expected one of {', '.join(DEVICES)}")
    import torch

    if name == "cuda" and not torch.cuda.is_available():
        raise UserError("--device cuda: no usable GPU here; aisc doctor says more")
    return torch.device(name or ("cuda" if torch.cuda.is_available() else "cpu"))


def renew_report(target: Target, folder: Path) -> None:
    """Writes the report of the run whose `eval/` is `folder` again, with the new figures."""
    from train.report import NAME, write_report

    if (folder.parent / NAME).is_file() and (folder.parent / "attempts").is_dir():
        write_report(RunFolder(folder.parent))
