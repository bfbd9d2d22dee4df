"""What was found: tables on the terminal and in RESULTS.md, plots beside it, every number in results.json."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table as RichTable

from benchmarks.paper import gradient_reports, plots, reports
from benchmarks.paper.arms import EXPERIMENTS
from benchmarks.paper.deciding import READING, deciding_report
from benchmarks.paper.place import Place, protocol_state, read_result
from benchmarks.paper.protocol import WHOLE
from revelm.core.atomic import write_json_atomic, write_text_atomic

REPORTS: Mapping[str, Callable[[str, reports.Results], list[reports.Parts]]] = {
    "sft": reports.sft_report,
    "value": gradient_reports.value_report,
    "enlarge": reports.enlarge_report,
    "tpf": reports.tpf_report,
    "echoes": reports.echoes_report,
    "estimators": gradient_reports.estimators_report,
}
Results = dict[str, dict[int, dict[str, Any]]]  # of one experiment: arm -> seed -> result


@dataclass(frozen=True)
class Table:
    """Cells as text; the first column is the row's name. ``notes``: sentences below it."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()

    def markdown(self) -> str:
        """The table in Markdown, its title as a line above it."""
        line = "|" + "|".join(["---", *["---:"] * (len(self.columns) - 1)]) + "|"
        rows = [self.columns, *self.rows]
        shown = ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
        notes = [f"\n{note}" for note in self.notes]
        return "\n".join([f"{self.title}", "", shown[0], line, *shown[1:], *notes]) + "\n"

    def rich(self) -> RichTable:
        """The table for a terminal."""
        table = RichTable(title=self.title, caption="\n".join(self.notes) or None)
        for number, column in enumerate(self.columns):
            table.add_column(column, justify="right" if number else "left")
        for row in self.rows:
            table.add_row(*row)
        return table


def read_results(place: Place) -> dict[str, Results]:
    """The result files that are there, by experiment, arm and seed, in the order of the protocol and of its seeds
    alone."""
    found: dict[str, Results] = {}
    for name, experiment in EXPERIMENTS.items():
        for arm in experiment.arms:
            for seed in experiment.seeds:
                result = read_result(place.result(name, arm, seed))
                if result is not None:
                    found.setdefault(name, {}).setdefault(arm, {})[seed] = result
    return found


def tables_of(name: str, results: Results) -> list[Table]:
    """The tables of one experiment."""
    return [Table(*parts) for parts in REPORTS.get(name, reports.rl_report)(name, results)]


def provenance(results: Mapping[str, Results]) -> list[str]:
    """Sentences: which protocol the results were made under."""
    states = {
        json.dumps(one["protocol"], sort_keys=True) for r in results.values() for s in r.values() for one in s.values()
    }
    found = [json.loads(state) for state in sorted(states)]
    said = [
        f"Protocol: commit {state['commit'] or 'none'}{' with changes' if state['is_modified'] else ''}, "
        f"package {state['source']}, benchmark {state['benchmark']}{_scale(state['scale'])}, "
        f"{', '.join(f'{name} {version}' for name, version in state['libraries'].items())}."
        for state in found
    ]
    return [*said, "Results were made under different protocols: they do not compare."] if len(found) > 1 else said


def _scale(scale: Mapping[str, Any]) -> str:
    return "" if scale == protocol_state(WHOLE)["scale"] else ", not of whole scale"


def write_tables(place: Place, to: Path, *, date: str) -> None:
    """RESULTS.md, ``*.svg`` and results.json in ``to``, and the tables on the terminal. ValueError for no results."""
    results = read_results(place)
    if not results:
        raise ValueError(f"out: there are no results below {place.out}; run an experiment first")
    console, parts = Console(width=170), [f"# The paper in miniature\n\n{date}. {' '.join(provenance(results))}\n"]
    parts.append(reports.READING)
    deciding = Table(*deciding_report(results))
    console.print("\n[bold]The deciding comparison", deciding.rich(), sep="\n")
    parts += ["## The deciding comparison\n", READING, deciding.markdown()]
    for name, found in results.items():
        parts.append(f"## {EXPERIMENTS[name].title}\n")
        shown = tables_of(name, found)
        for table in shown:
            console.print(f"\n[bold]{EXPERIMENTS[name].title}" if table is shown[0] else "", table.rich(), sep="\n")
            parts.append(table.markdown())
        for file, drawing in plots.plots_of(name, found).items():
            write_text_atomic(to / f"{file}.svg", drawing + "\n")
            parts.append(f"![{file}]({file}.svg)\n")
    write_text_atomic(to / "RESULTS.md", "\n".join(parts))
    write_json_atomic(to / "results.json", {"date": date, "results": results})
