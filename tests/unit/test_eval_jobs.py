"""What a recipe of several tasks means: which settings, which limits, and what is refused."""

from typing import Any

import pytest

from revelm.core.config import dump_yaml, load_config, parse_config
from revelm.eval.config import EvalConfig
from revelm.eval.jobs import Job, jobs_of, resolved

RECIPE: dict[str, Any] = {
    "model": "m",
    "samples_per_problem": 3,
    "settings": {
        "static": {"temperature": 0, "rule": "static", "max_new_tokens": 2000},
        "dynamic": {"max_new_tokens": 2000, "top_k": 5},
    },
    "tasks": {
        "chain": {"expected": {"static": {"accuracy": 0.9, "source": "s"}}},
        "short": {"task": "math", "max_new_tokens": 100, "samples_per_problem": 8, "seed": 4},
        "one": {"task": {"kind": "chain", "num_test": 9}, "settings": {"dynamic": {"rule": {"threshold": 0.5}}}},
        "new": {"task": "chain", "settings": {"fast": {"temperature": 0.2}}, "num_problems": 2},
    },
}


def jobs(**changes: Any) -> dict[str, Job]:
    return {job.name: job for job in jobs_of(parse_config(EvalConfig, RECIPE | changes))}


def test_a_name_is_a_task() -> None:
    """Catches ``gsm8k:`` with nothing behind it, which is how people write it, refused."""
    assert [job.spec for job in jobs(tasks={"gsm8k": None, "chain": {}}).values()] == [
        {"kind": "gsm8k"},
        {"kind": "chain"},
    ]


def test_entries_lie_over_what_is_around_them() -> None:
    """Catches an entry that loses the settings around it, one that cannot change a single field, and limits that lose
    against those of the settings."""
    found = jobs()
    limits = {name: [s.max_new_tokens for s in job.asked.named_settings().values()] for name, job in found.items()}
    assert limits == {"chain": [2000, 2000], "short": [100, 100], "one": [2000], "new": [None]}
    assert found["chain"].spec == {"kind": "chain"}
    assert [job.asked.samples_per_problem for job in found.values()] == [3, 8, 3, 3]
    assert (found["short"].asked.seed, found["new"].asked.num_problems) == (4, 2)
    (changed,) = found["one"].asked.named_settings().values()
    assert (changed.rule, changed.top_k) == ({"kind": "dynamic", "threshold": 0.5}, 5)
    assert found["one"].spec == {"kind": "chain", "num_test": 9}


def test_overrides_reach_everything() -> None:
    """Catches an entry that cannot be made, or a task's own field that cannot be reached, on the command line."""
    words = ["model=m", "tasks.chain.num_problems=7", "tasks.chain.task.num_test=8", "n=2"]
    (job,) = jobs_of(load_config(EvalConfig, None, words))
    assert (job.asked.num_problems, job.asked.samples_per_problem) == (7, 2)
    assert job.spec == {"kind": "chain", "num_test": 8}
    assert list(job.asked.named_settings()) == ["static", "dynamic", "dynamic_t05"]


def test_the_saved_recipe_asks_the_same(tmp_path: Any) -> None:
    """Catches a config.yaml whose defaults, all written out, change what the entries mean."""
    config = resolved(parse_config(EvalConfig, RECIPE))
    dump_yaml(config, tmp_path / "config.yaml")
    again = load_config(EvalConfig, tmp_path / "config.yaml", [])
    assert again == config
    assert [j.asked.named_settings() for j in jobs_of(again)] == [j.asked.named_settings() for j in jobs().values()]
    assert [(j.spec, j.expected) for j in jobs_of(again)] == [(j.spec, j.expected) for j in jobs().values()]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"tasks": {}}, "task: required, but not given"),
        ({"task": "chain"}, "task: given beside tasks"),
        ({"tasks": {"../x": {}}}, "'../x' names files"),
        ({"tasks": {"summary.json": {"task": "chain"}}}, r"'summary\.json' is a file of the evaluation"),
        ({"resume": True}, "resume: goes on with what is in out; give --out as well"),
        ({"tasks": {"chain": {"settings": {"a/b": {}}}}}, r"tasks\.chain\.settings: 'a/b' names files"),
        ({"tasks": {"chain": {"pass_at": [4]}}}, "4 is more than samples_per_problem=3"),
        ({"tasks": {"chain": {"sed": 1}}}, r"tasks\.chain\.sed: unknown field; did you mean 'seed'"),
        ({"tasks": {"chain": {"settings": {"x": {"top_q": 1}}}}}, r"tasks\.chain\.settings\.x\.top_q: unknown field"),
        ({"tasks": {"chain": {"expected": {"greedy": {"accuracy": 0.5, "source": ""}}}}}, "greedy: no such setting"),
        ({"tasks": {"chain": {"expected": {"static": {"accuracy": 50, "source": ""}}}}}, "less than or equal to 1"),
        ({"expected": {"static": {"accuracy": 0.5, "source": ""}}}, "expected: is for a single task"),
    ],
)
def test_what_makes_no_sense_is_refused(changes: dict[str, Any], reason: str) -> None:
    """Catches a mistake that would show after hours, or never."""
    with pytest.raises(ValueError, match=reason):
        jobs(**changes)
