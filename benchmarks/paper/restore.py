"""Results of an earlier series put back where its own left them, so that it goes on on another machine.

A series takes hours, and its models are not kept. ``results.json``, which is, has every number of every arm and seed;
what an arm still to be trained needs of others, the budget that its reference has spent, is among them. Starts are
trained again. Whether they are the same is there to be seen: every result has its start's accuracies. The folder is
held to the protocol of what is restored: the series goes on from a checkout of that commit (one of before this file
was there trains the reference arms again to know what they have spent).
"""

import json
from pathlib import Path
from typing import Any

from benchmarks.paper.arms import EXPERIMENTS
from benchmarks.paper.place import Place, check_state, hold_to_protocol, protocol_state, read_result
from revelm.core.atomic import write_json_atomic


def restore(place: Place, file: Path) -> int:
    """Write the results in ``file`` that are not below ``place`` yet, and their protocol; how many those were.

    ValueError when there is no such file, when its results were made under several protocols or under another one than
    what is there, or when another result is there already; then nothing is written.
    """
    try:
        known = json.loads(file.read_text(encoding="utf-8"))["results"]
        found: dict[Path, Any] = {
            place.result(experiment, arm, int(seed)): {**result, "protocol": dict(result["protocol"])}
            for experiment, arms in known.items()
            for arm, seeds in arms.items()
            for seed, result in seeds.items()
            if arm in EXPERIMENTS[experiment].arms
        }
    except (OSError, LookupError, TypeError, ValueError, AttributeError) as error:
        raise ValueError(f"file: {file} holds no results ({type(error).__name__}); give a results.json") from error
    states = [result["protocol"] for result in found.values()]
    for target, result in found.items():
        check_state(states[0], result["protocol"], file)
        if result["protocol"].get("scale") != protocol_state(place.scale)["scale"]:
            raise ValueError(f"file: {file} holds results of another scale; restore them with or without --smoke")
        if (there := read_result(target)) is not None and there != result:
            raise ValueError(f"out: {target} is there and differs from {file}; give another folder")
    if states:
        hold_to_protocol(place, states[0])
    missing = [target for target in found if not target.is_file()]
    for target in missing:
        target.parent.mkdir(parents=True, exist_ok=True)
        write_json_atomic(target, found[target])
    return len(missing)


def known_compute(arm: str, seed: int, place: Place, experiments: tuple[str, ...]) -> float | None:
    """Compute that ``arm`` has spent, from its result in the first of ``experiments`` that has one; None: in none."""
    for experiment in experiments:
        result = read_result(place.result(experiment, arm, seed))
        if result is not None:
            check_state(protocol_state(place.scale), result["protocol"], place.result(experiment, arm, seed))
            return float(result["cost"]["compute"])
    return None
