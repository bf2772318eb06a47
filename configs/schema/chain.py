"""The last two stages of a chain, which train nothing: what `aisc eval` and `aisc export --release` are told there."""

from __future__ import annotations

from dataclasses import dataclass

from configs.schema.fields import setting

DTYPES = ("float32", "bfloat16", "float16")


@dataclass(kw_only=True, slots=True)
class EvaluateStage:
    packs: list[str] = setting(
        factory=list, identity=False, help="Packs (medical, hk, safety) or single tasks; none: those of the last run's `evaluation`."
    )
    tasks: dict[str, str] = setting(factory=dict, identity=False, help="Data files of tasks, e.g. {hkmmlu: /data/hkmmlu.jsonl}.")
    limit: int | None = setting(None, identity=False, help="Only the first N items of each task; null: all.")
    forgetting: list[str] = setting(factory=list, identity=False, help="Files of general text for the forgetting gate.")
    base: str | None = setting(None, identity=False, help="Model folder that the gate compares with; null: that of the last run's `evaluation`, else the one the chain began from.")
    against: str | None = setting(None, identity=False, help="A second run or model folder for paired comparison; null: none.")
    rows: int | None = setting(None, identity=False, help="Packed rows at once; null: what aisc eval takes.")
    device: str | None = setting(None, identity=False, help="cpu or cuda; null: a GPU when there is one.")
    samples: bool = setting(False, identity=False, help="Keep every answer in a private file.")

    def problems(self) -> list[str]:
        """Returns what is wrong with these values, one sentence each."""
        found = [f"{name}={value}: expected 1 or more" for name, value in self._counts() if value is not None and value < 1]
        if self.device not in (None, "cpu", "cuda"):
            found.append(f"device={self.device}: expected cpu or cuda")
        return found

    def _counts(self) -> tuple[tuple[str, int | None], ...]:
        return ("limit", self.limit), ("rows", self.rows)

    def words(self) -> list[str]:
        """Returns what follows `aisc eval RUN`."""
        values = {
            "--limit": self.limit,
            "--forgetting": ",".join(self.forgetting) or None,
            "--base": self.base,
            "--against": self.against,
            "--rows": self.rows,
            "--device": self.device,
        }
        options = [word for name, value in values.items() if value is not None for word in (name, str(value))]
        files = [f"{name}={path}" for name, path in self.tasks.items()]
        return [*self.packs, *files, *options, *(["--samples"] if self.samples else [])]


@dataclass(kw_only=True, slots=True)
class ReleaseStage:
    merge: bool = setting(False, identity=False, help="Release base and adapter as one model.")
    dtype: str | None = setting(None, identity=False, help="Type of the weights: float32, bfloat16 or float16; null: as they are.")
    licences: dict[str, str] = setting(
        factory=dict, identity=False, help="Licence of each source of data that does not say its own, {NAME: LICENCE}."
    )

    def problems(self) -> list[str]:
        """Returns what is wrong with these values, one sentence each."""
        if self.dtype is None or self.dtype in DTYPES:
            return []
        return [f"dtype={self.dtype}: expected one of {', '.join(DTYPES)}"]

    def words(self) -> list[str]:
        """Returns what follows `aisc export RUN`."""
        dtype = ["--dtype", self.dtype] if self.dtype else []
        licences = [word for name, text in self.licences.items() for word in ("--licence", f"{name}={text}")]
        return ["--release", *(["--merge"] if self.merge else []), *dtype, *licences]
