"""What one arm of one experiment does with one seed: trains what is missing, measures, leaves a result file."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.paper.arms import POLICIES, RL_ARMS, SAME_RUN, SFT_ARMS
from benchmarks.paper.compute import compute_of, step_rows
from benchmarks.paper.estimators import compared
from benchmarks.paper.gradients import measured
from benchmarks.paper.measuring import Asking, arm_settings, columns_of, evaluated
from benchmarks.paper.place import Place, check_state, hold_to_protocol, protocol_state, read_result
from benchmarks.paper.protocol import BASES, PRIMARY, TRAINED, rule, settings
from benchmarks.paper.training import budget_of, fine_tuned, trained, tuned_start
from revelm.core.atomic import write_json_atomic
from revelm.models.load import checkpoint_path


@dataclass(frozen=True)
class Job:
    """One arm of one experiment under one seed."""

    experiment: str
    arm: str
    seed: int
    place: Place

    @property
    def is_done(self) -> bool:
        """Whether its result is there. ValueError when it was made under another protocol."""
        return self.known() is not None

    @property
    def file(self) -> Path:
        """Where its result goes."""
        return self.place.result(self.experiment, self.arm, self.seed)

    def known(self) -> dict[str, Any] | None:
        """Its result; None where there is none. ValueError when it was made under another protocol."""
        found = read_result(self.file)
        if found is not None:
            check_state(protocol_state(self.place.scale), found["protocol"], self.file)
        return found


def run_job(job: Job) -> dict[str, Any]:
    """The result of a job, made if it is not there."""
    state = hold_to_protocol(job.place)
    if (known := job.known()) is not None:
        return known
    found = MEASURES.get(job.experiment, rl_arm)(job.arm, job.seed, job.place)
    result = {"experiment": job.experiment, "arm": job.arm, "seed": job.seed, "protocol": state, **found}
    write_json_atomic(job.file, result)
    return result


def base_of(experiment: str, arm: str) -> str:
    """The base whose start an arm begins with."""
    if experiment == "sft":
        return SFT_ARMS[arm].base
    if experiment == "value":
        return "b4"
    if experiment == "estimators":
        return POLICIES[arm][0]
    return arm if arm in BASES else RL_ARMS[arm].base


def rl_arm(arm: str, seed: int, place: Place) -> dict[str, Any]:
    """Experiments (2), (4), (5), (7), (8): accuracy before and after, the course of training, and what it cost."""
    runs, known = trained(arm, seed, place), RL_ARMS[arm]
    folder, wanted, base = place.run(SAME_RUN.get(arm, arm), seed), arm_settings(known), known.base
    before, after = (Asking(one, base, seed, place.scale) for one in (tuned_start(base, seed, place),
                                                                      checkpoint_path(runs[-1])))  # fmt: skip
    return {
        "start": evaluated(before, place.start(base, seed), wanted),
        "evaluations": evaluated(after, folder, wanted),
        "training": columns_of(step_rows(runs)),
        "cost": {**compute_of(SAME_RUN.get(arm, arm), runs), "budget": budget_of(arm, seed, place)},
    }


def sft_arm(arm: str, seed: int, place: Place) -> dict[str, Any]:
    """Experiment (1): accuracy before, along the way and after, and compute spent."""
    tuned, base = fine_tuned(arm, seed, place), SFT_ARMS[arm].base
    run = tuned.run
    rows = step_rows([run], "sft")
    positions = [float(row["positions"]) for row in rows]
    spent = [tuned.collecting + TRAINED * sum(positions[: i + 1]) for i in range(len(rows))]
    reached = {row["step"]: one for row, one in zip(rows, spent, strict=True)}
    curve = [
        {"step": row["step"], "compute": reached[row["step"]], "accuracy": row["accuracy"]["mean"]}
        for row in step_rows([run], "eval")
        if row["setting"] == PRIMARY
    ]
    before, after = (Asking(one, base, seed, place.scale) for one in (tuned_start(base, seed, place),
                                                                      checkpoint_path(run)))  # fmt: skip
    return {
        "start": evaluated(before, place.start(base, seed), settings(base)),
        "evaluations": evaluated(after, run, settings(base)),
        "training": {"loss": [row["loss"] for row in rows], "positions": positions},
        "curve": curve,
        "cost": {"positions": sum(positions), "collecting": tuned.collecting, "compute": spent[-1],
                 "budget": tuned.budget},
    }  # fmt: skip


def tpf_arm(base: str, seed: int, place: Place) -> dict[str, Any]:
    """Experiment (6): accuracy and tokens per forward over thresholds and temperatures, before and after TraceRL."""
    scale, limits = place.scale, BASES[base].decoding
    wanted = {
        f"T={heat}, {limit}": {**limits, "temperature": heat, "rule": rule(limit)}
        for heat in scale.temperatures
        for limit in scale.thresholds
    }
    name = f"{base}-trace"
    start, run = tuned_start(base, seed, place), trained(name, seed, place)[-1]
    models = {"before": (start, place.start(base, seed)), "after": (checkpoint_path(run), place.run(name, seed))}
    found: dict[str, Any] = {}
    for when, (model, folder) in models.items():
        numbers = evaluated(Asking(model, base, seed, scale), folder, wanted)
        found[when] = {
            str(heat): [[numbers[f"T={heat}, {limit}"][k] for k in ("accuracy", "tokens_per_forward")]
                        for limit in scale.thresholds]
            for heat in scale.temperatures
        }  # fmt: skip
    return {"curves": found, "thresholds": list(scale.thresholds)}


MEASURES: Mapping[str, Callable[[str, int, Place], dict[str, Any]]] = {
    "sft": sft_arm,
    "value": measured,
    "tpf": tpf_arm,
    "estimators": compared,
}
