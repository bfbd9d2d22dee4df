"""The summary of an evaluation as Markdown: settings side by side, then every number, and what it was made with."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

Numbers = Mapping[str, Any]
_NUMERIC = "0123456789+-–"
"""How the cells of a column of numbers begin."""


def results_of(summary: Numbers) -> dict[str, Numbers]:
    """The result of each task by name, also where there is a single one."""
    found: Mapping[str, Numbers] = summary["tasks"] if "tasks" in summary else {str(summary["task"]): summary}
    return dict(found)


def rows_of(summary: Numbers) -> Iterator[tuple[str, str, Numbers]]:
    """Task, setting and numbers of everything that was asked."""
    for task, result in results_of(summary).items():
        for setting, numbers in result["settings"].items():
            yield task, setting, numbers


def summary_markdown(summary: Numbers) -> str:
    """The page."""
    parts = [f"# {_cell(summary['model'])}", _side_by_side(summary), _details(summary)]
    parts += [_votes(summary), _groups(summary), _expected(summary), _environment(summary)]
    return "\n\n".join(part for part in parts if part) + "\n"


def single_answers(summary: Numbers) -> str:
    """A sentence about the settings under which there was one answer to each problem instead of more; "" for none."""
    few = [
        f"{task}, {setting} (instead of {result['samples_per_problem']})"
        for task, result in results_of(summary).items()
        for setting, num in result.get("answers_per_problem", {}).items()
        if num < result["samples_per_problem"]
    ]
    return f"One answer to each problem, as all would be the same: {'; '.join(few)}." if few else ""


def share(numbers: Numbers) -> str:
    """A share in per cent with its interval, or a dash where there is none."""
    if numbers.get("mean") is None or numbers["mean"] != numbers["mean"]:
        return "–"
    return f"{100 * numbers['mean']:.1f} [{100 * numbers['low']:.1f}, {100 * numbers['high']:.1f}]"


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table of text; columns of numbers are aligned to the right."""
    columns = [[row[i] for row in rows if row[i]] for i in range(len(header))]
    sides = ["---:" if cells and all(cell[0] in _NUMERIC for cell in cells) else "---" for cells in columns]
    lines = [header, sides, *rows]
    return "\n".join("| " + " | ".join(_cell(cell) for cell in line) + " |" for line in lines)


def _side_by_side(summary: Numbers) -> str:
    """Accuracies: a row for each task, a column for each setting."""
    settings = list(dict.fromkeys(setting for _, setting, _ in rows_of(summary)))
    rows = []
    for task, result in results_of(summary).items():
        cells = [share(result["settings"][name]["accuracy"]) if name in result["settings"] else "" for name in settings]
        asked = f"{result['num_problems']} × {result['samples_per_problem']}"
        rows.append([task, asked, *cells])
    parts = ["Accuracy in per cent, with 95 % intervals clustered by problem.",
             table(["task", "problems × answers", *settings], rows)]  # fmt: skip
    return "\n\n".join(part for part in (*parts, single_answers(summary)) if part)


def _details(summary: Numbers) -> str:
    header = ["task", "setting", "tokens per forward", "forwards", "length", "truncated %", "errors %", "tokens/s"]
    rows = [
        [
            task,
            setting,
            _mean(numbers["tokens_per_forward"], 2),
            _mean(numbers["forwards"], 1),
            _mean(numbers["length"], 1),
            _mean(numbers["truncated"], 1, scale=100),
            _mean(numbers["errors"], 1, scale=100),
            f"{numbers['tokens_per_second']:.0f}",
        ]
        for task, setting, numbers in rows_of(summary)
    ]
    return f"## Speed and length\n\nMeans per answer.\n\n{table(header, rows)}"


def _votes(summary: Numbers) -> str:
    """pass@k and majority@k, where there are several answers."""
    rows = []
    for task, setting, numbers in rows_of(summary):
        for kind, name in (("pass@", "pass_at_k"), ("majority@", "majority_at_k")):
            rows += [[task, setting, f"{kind}{k}", share(value)] for k, value in numbers[name].items() if int(k) > 1]
    return "## Several answers\n\n" + table(["task", "setting", "", "per cent"], rows) if rows else ""


def _groups(summary: Numbers) -> str:
    rows = [
        [task, setting, group, str(part["accuracy"]["n"]), share(part["accuracy"])]
        for task, setting, numbers in rows_of(summary)
        for group, part in numbers["groups"].items()
    ]
    return "## Groups of problems\n\n" + table(["task", "setting", "", "answers", "accuracy"], rows) if rows else ""


def _expected(summary: Numbers) -> str:
    rows = []
    for task, setting, numbers in rows_of(summary):
        if "expected" in numbers:
            told = numbers["expected"]
            within = f"[{100 * told['low']:.1f}, {100 * told['high']:.1f}]"
            published = f"{100 * told['accuracy']:.1f}"
            measured = f"{100 * numbers['accuracy']['mean']:.1f}"
            rows.append([task, setting, measured, published, within, told["verdict"], told["source"]])
    header = ["task", "setting", "measured", "published", "agrees within", "verdict", "source"]
    return f"## Measured and published\n\n{table(header, rows)}" if rows else ""


def _environment(summary: Numbers) -> str:
    told = dict(summary["environment"])
    packages = ", ".join(f"{name} {version}" for name, version in told.pop("packages").items())
    lines = [f"- {name}: {value}" for name, value in {**told, "packages": packages, "seed": summary["seed"]}.items()]
    return "## Made with\n\n" + "\n".join(_cell(line) for line in lines if not line.endswith(": None"))


def _mean(numbers: Numbers, digits: int, *, scale: float = 1.0) -> str:
    value = numbers.get("mean")
    return "–" if value is None or value != value else f"{scale * value:.{digits}f}"


def _cell(text: str) -> str:
    """Text on one line that is no markup."""
    return " ".join(str(text).split()).replace("|", "\\|").replace("<", "&lt;")
