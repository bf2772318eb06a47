"""A place for whole runs: a tokenizer and chats made on the spot, one import of the stack, one fork per rank.

Each start is what `aisc train` starts as a worker: the command line through `cli.main` with the environment of a
launcher. Forking from one process that has imported everything (and computed nothing) saves some 8 CPU-seconds a rank.
"""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from configs.runfolder import RunFolder

TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
DEADLINE_S = 240.0


def make_tokenizer(folder: Path, texts: Sequence[str]) -> None:
    """Trains a byte-level BPE of 400 tokens with a chat template, and writes it as a tokenizer folder."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=400, special_tokens=special, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(texts, trainer)
    folder.mkdir()
    tokenizer.save(str(folder / "tokenizer.json"))
    values = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": "<|im_end|>",
        "pad_token": "<|endoftext|>",
        "chat_template": TEMPLATE,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(values))


def make_chats(path: Path, count: int) -> list[str]:
    """Writes `count` short chats of sums, and returns their texts."""
    chance = random.Random(0)
    texts = []
    with path.open("w") as file:
        for _ in range(count):
            a, b = chance.randrange(100, 1000), chance.randrange(100, 1000)  # not duplicates of one another
            turns = [f"What is {a} and {b}?", f"{a} and {b} make {a + b}." * chance.randrange(1, 4)]
            roles = ("user", "assistant")
            messages = [{"role": role, "content": turn} for role, turn in zip(roles, turns, strict=True)]
            file.write(json.dumps({"messages": messages}) + "\n")
            texts += turns
    return texts


@dataclass(slots=True)
class Process:
    """The ranks of one start of a run."""

    run_dir: Path
    pids: list[int]
    codes: dict[int, int] = field(default_factory=dict)

    def poll(self) -> bool:
        """Collects what has ended; True when every rank has."""
        for pid in self.pids:
            if pid not in self.codes:
                done, status = os.waitpid(pid, os.WNOHANG)
                if done:
                    self.codes[pid] = os.waitstatus_to_exitcode(status)
        return len(self.codes) == len(self.pids)

    def send(self, number: signal.Signals, ranks: Sequence[int] | None = None) -> None:
        """Sends a signal to the ranks that still run, or to some of them."""
        for rank, pid in enumerate(self.pids):
            if pid not in self.codes and (ranks is None or rank in ranks):
                os.kill(pid, number)

    def wait(self, timeout_s: float = DEADLINE_S) -> list[int]:
        """Waits for every rank and returns the exit codes; negative for a signal."""
        deadline = time.monotonic() + timeout_s
        while not self.poll():
            if time.monotonic() > deadline:
                self.send(signal.SIGKILL)
            time.sleep(0.005)
        return [self.codes[pid] for pid in self.pids]

    def kill(self, ranks: Sequence[int] | None = None) -> list[int]:
        """SIGKILLs all ranks, or some; the others get a while to notice by themselves. Returns the exit codes."""
        self.send(signal.SIGKILL, ranks)
        return self.wait(30.0)

    def until(self, happened: Callable[[RunFolder], bool]) -> bool:
        """Waits until `happened(run folder)`; False when the run ended first."""
        deadline = time.monotonic() + DEADLINE_S
        while time.monotonic() < deadline:
            folders = list(self.run_dir.glob("*/attempts"))
            if folders and happened(RunFolder(folders[0].parent)):
                return True
            if self.poll():
                return False
            time.sleep(0.001)
        raise TimeoutError(f"{self.run_dir}: nothing of the kind happened in {DEADLINE_S:.0f} s")


class Lab:
    """Makes data and tokenizer in `folder`, imports the stack, starts runs."""

    def __init__(self, folder: Path, options: Sequence[str]) -> None:
        self.folder = folder
        self._options = list(options)
        texts = make_chats(folder / "chats.jsonl", 160)
        make_tokenizer(folder / "tokenizer", texts)
        _import_stack()

    def command(self, run_dir: Path, *options: str) -> list[str]:
        """Returns the arguments of `aisc` for a run below `run_dir`."""
        return [
            "train",
            "model=tiny_llama",
            f"model.tokenizer={self.folder / 'tokenizer'}",
            f"data={self.folder / 'chats.jsonl'}",
            f"data.store={self.folder / 'stores'}",
            f"run.dir={run_dir}",
            *self._options,
            *options,
        ]

    def start(self, run_dir: Path, world: int, *options: str) -> Process:
        """Starts the run's next attempt on `world` forked ranks."""
        run_dir.mkdir(exist_ok=True)
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            port = listener.getsockname()[1]
        log = run_dir / f"log-{time.monotonic_ns()}"
        sys.stdout.flush()
        pids = []
        for rank in range(world):
            pid = os.fork()
            if pid == 0:
                _become_rank(self.command(run_dir, *options), rank, world, port, log)
            pids.append(pid)
        return Process(run_dir, pids)

    def run(self, run_dir: Path, world: int, *options: str) -> RunFolder:
        """Runs to the end and returns the run folder."""
        codes = self.start(run_dir, world, *options).wait()
        if any(codes):
            logs = "\n".join(path.read_text()[-2000:] for path in sorted(run_dir.glob("log-*"))[-world:])
            raise AssertionError(f"exit codes {codes}\n{logs}")
        return only_run(run_dir)


def only_run(run_dir: Path) -> RunFolder:
    """Returns the one run below `run_dir`."""
    (path,) = run_dir.glob("*/attempts")
    return RunFolder(path.parent)


def _import_stack() -> None:
    """Imports what a run imports. Nothing is computed here: threads would not survive the fork."""
    import accelerate  # noqa: F401
    import peft  # noqa: F401
    import transformers
    from transformers.models.llama import modeling_llama  # noqa: F401

    import train.finish
    import train.run  # noqa: F401

    transformers.logging.set_verbosity_error()


def _become_rank(arguments: list[str], rank: int, world: int, port: int, log: Path) -> None:
    code = 1
    try:
        os.setsid()
        output = os.open(f"{log}-{rank}", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.dup2(output, 1)
        os.dup2(output, 2)
        if world > 1:
            names = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
            values = (rank, rank, world, world, "127.0.0.1", port)
            os.environ.update({name: str(value) for name, value in zip(names, values, strict=True)})
        from cli.main import main

        code = main(arguments)
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
