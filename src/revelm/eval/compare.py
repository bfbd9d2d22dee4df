"""Two evaluations of the same problems compared, as numbers, Markdown and a page; the statistics: ``eval.paired``."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from revelm.core.atomic import write_json_atomic, write_text_atomic
from revelm.eval.paired import ROUNDING, difference, holm, paired_p
from revelm.eval.pairing import Both, Paired, Pairing, paired_evaluations
from revelm.eval.samples import Sample
from revelm.eval.tables import table
from revelm.viz.comparison_page import Differing, comparison_page

SHOWN = 20
NAME = "comparison"
SUFFIXES = (".md", ".json", ".html")


def compare_evaluations(first: Path, second: Path) -> dict[str, Any]:
    """What ``second`` has over ``first``: under "comparisons" an entry for each task and setting that both have. Either
    is the folder of an evaluation, or ``folder@setting``.

    An entry: ``difference`` of accuracies {"mean", "low", "high", "n"} (n: problems that both answered), ``p``,
    ``p_holm``, the ids of problems ``won`` and ``lost`` (by ``second``), ``num_equal``, how many problems were
    ``left_out`` because only one has them or they are asked otherwise, and what in the settings is ``otherwise``. Under
    "only_first" and "only_second": tasks and settings without a counterpart.
    ValueError for a folder that is no finished evaluation, an unknown setting, and where nothing is common.
    """
    return compared_pairs(first, second, paired_evaluations(first, second))


def compared_pairs(first: Path, second: Path, pairing: Pairing) -> dict[str, Any]:
    """What ``compare_evaluations`` says, of answers that were read."""
    entries = [
        {
            "task": one.task,
            "setting": one.setting,
            **compared(one.problems),
            "left_out": one.left_out,
            "otherwise": {name: list(values) for name, values in one.otherwise.items()},
        }
        for one in pairing.pairs
    ]
    for entry, corrected in zip(entries, holm([entry["p"] for entry in entries]), strict=True):
        entry["p_holm"] = corrected
    only = {"only_first": list(pairing.only_first), "only_second": list(pairing.only_second)}
    return {"first": str(first), "second": str(second), "comparisons": entries, **only}


def compared(problems: Sequence[Both], *, seed: int = 0) -> dict[str, Any]:
    """The paired comparison of accuracies."""
    d = np.array([one.change for one in problems])
    rights = [one.right for one in problems]
    return {
        "first": float(np.mean([np.mean(first) for first, _ in rights])),
        "second": float(np.mean([np.mean(second) for _, second in rights])),
        "difference": difference(d),
        "p": paired_p(rights, seed=seed),
        "won": [one.first[0].problem for one in problems if one.change > ROUNDING],
        "lost": [one.first[0].problem for one in problems if one.change < -ROUNDING],
        "num_equal": int((np.abs(d) <= ROUNDING).sum()),
    }


def write_comparison(first: Path, second: Path, *, out: Path | None) -> dict[str, Any]:
    """What ``compare_evaluations`` says, kept in ``out``: a file that ends in one of ``SUFFIXES``, or a folder that
    gets ``comparison.md``, ``.json`` and ``.html``. ValueError for another ending."""
    if out is not None and out.suffix not in ("", *SUFFIXES) and not out.is_dir():
        raise ValueError(f"--out {out}: expected a folder, or a file name that ends in {', '.join(SUFFIXES)}")
    pairing = paired_evaluations(first, second)
    found = compared_pairs(first, second, pairing)
    if out is not None:
        is_file = out.suffix in SUFFIXES and not out.is_dir()
        for file in [out] if is_file else [out / f"{NAME}{suffix}" for suffix in SUFFIXES]:
            if file.suffix == ".json":
                write_json_atomic(file, found)
            else:
                write_text_atomic(
                    file, comparison_markdown(found) if file.suffix == ".md" else page_of(found, pairing.pairs)
                )
    return found


def page_of(found: Mapping[str, Any], pairs: Sequence[Paired]) -> str:
    """The comparison as an HTML document, with the answers to problems on which the two differ."""
    return comparison_page(found, [list(_differing(one)) for one in pairs])


def comparison_markdown(found: Mapping[str, Any]) -> str:
    """The result as a page: a table, then the problems that were won and lost."""
    header = ["task", "setting", "first", "second", "difference", "problems", "won", "lost", "p", "p (Holm)"]
    rows, lists, notes = [], [], []
    for one in found["comparisons"]:
        d, name = one["difference"], f"{one['task']}, {one['setting']}"
        interval = f"{100 * d['mean']:+.1f} [{100 * d['low']:+.1f}, {100 * d['high']:+.1f}]"
        numbers = [f"{100 * one['first']:.1f}", f"{100 * one['second']:.1f}", interval, str(d["n"])]
        counts = [str(len(one["won"])), str(len(one["lost"])), f"{one['p']:.4f}", f"{one['p_holm']:.4f}"]
        rows.append([one["task"], one["setting"], *numbers, *counts])
        for what in ("won", "lost"):
            more = len(one[what]) - SHOWN
            names = ", ".join(map(_code, one[what][:SHOWN])) + (f" and {more} more" if more > 0 else "")
            lists += [f"- {name}, {what}: {names}"] if names else []
        told = [f"{_code(field)} {_code(was)} and {_code(now)}" for field, (was, now) in one["otherwise"].items()]
        notes += [f"- {name}, asked otherwise: {', '.join(told)}"] if told else []
    title = f"- first: {_code(found['first'])}\n- second: {_code(found['second'])}\n\n"
    title += "Accuracies in per cent; second minus first, with 95 % intervals over problems that both answered."
    notes += [f"- {line}" for line in _left_out(found)]
    return "\n\n".join([title, table(header, rows), *("\n".join(some) for some in (lists, notes) if some)])


def _left_out(found: Mapping[str, Any]) -> Iterator[str]:
    """What is in one of the two only."""
    left = sum(one["left_out"] for one in found["comparisons"])
    if left:
        yield f"left out, as only one has them or they are asked otherwise: {left} problem{'s' if left > 1 else ''}"
    for name, told in (("only_first", "only in the first"), ("only_second", "only in the second")):
        if found[name]:
            yield f"{told}: {', '.join(map(_code, found[name]))}"


def _differing(pair: Paired) -> Iterator[Differing]:
    for one in pair.problems:
        if abs(one.change) > ROUNDING:
            sample = one.first[0]
            sides = [(_told(some), [answer.row() for answer in _telling(some)]) for some in (one.first, one.second)]
            yield Differing(
                pair.task, pair.setting, one.change > 0, sample.problem, sample.question, sample.reference, *sides
            )


def _told(some: Sequence[Sample]) -> str:
    return f"{sum(one.correct for one in some):.0f} of {len(some)} right"


def _telling(some: Sequence[Sample]) -> list[Sample]:
    """The first right answer and the first wrong one, in their order."""
    first: dict[float, Sample] = {}
    for one in some:
        first.setdefault(one.correct, one)
    return list(first.values())


def _code(value: Any) -> str:
    """Anything as a piece of code on one line."""
    shown = "".join(sign if sign.isprintable() and sign != "`" else " " for sign in str(value))
    return f"`{' '.join(shown.split())}`"
