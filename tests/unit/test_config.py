"""YAML, overrides and schemas to one typed object or one readable error."""

from pathlib import Path

import pytest
from pydantic import Field

from revelm.core.config import Schema, Spec, apply_overrides, dump_yaml, load_config, merge, read_yaml
from revelm.trainers.config import RLConfig, SFTConfig


class Optimiser(Schema):
    """Nested part of the schema under test."""

    learning_rate: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.95)


class Run(Schema):
    """Schema under test."""

    seed: int = 0
    out: str | None = None
    block_size: int = 4
    task: Spec = Field(default={"kind": "chain"})
    optimiser: Optimiser = Optimiser()
    extra: Optimiser | None = None
    parts: dict[str, Optimiser] = Field(default_factory=dict)


def test_later_sources_win(tmp_path: Path) -> None:
    """Catches overrides that lose against the file, or a file that loses against the defaults."""
    file = tmp_path / "a.yaml"
    file.write_text("seed: 2\noptimiser: {lr: 1e-5}\n")
    config = load_config(Run, file, ["optimiser.betas=[0.5, 1]", "parts.a.lr=2"], defaults={"seed": 1, "block_size": 8})
    assert config.parts == {"a": Optimiser(learning_rate=2.0)}
    assert (config.seed, config.block_size) == (2, 8)
    assert config.optimiser == Optimiser(learning_rate=1e-5, betas=(0.5, 1.0))


def test_an_override_wins_by_any_of_its_names(tmp_path: Path) -> None:
    """Catches `optimizer.lr=1e-4`, the help's own example, refused because the recipe says `learning_rate`."""
    file = tmp_path / "a.yaml"
    file.write_text("optimiser: {learning_rate: 1e-5}\ntask: {kind: x:Y, beta: 1, kl_weight: 2}\n")
    config = load_config(Run, file, ["optimiser.lr=2", "task.beta=3"])
    assert config.optimiser.learning_rate == 2.0
    assert config.task == {"kind": "x:Y", "beta": 3, "kl_weight": 2}
    file.write_text("optimiser: {lr: 1e-5}\n")
    assert load_config(Run, file, ["optimiser.learning_rate=2"]).optimiser.learning_rate == 2.0


def test_resolved_config_reads_back_the_same(tmp_path: Path) -> None:
    """Catches a saved config that is not the run's."""
    config = load_config(Run, None, ["task=sudoku4", "task.data=x.csv", "extra.lr=3"])
    assert config.task == {"kind": "sudoku4", "data": "x.csv"}
    dump_yaml(config, tmp_path / "b.yaml")
    assert load_config(Run, tmp_path / "b.yaml", []) == config


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("sed=1", r"^sed: unknown field; did you mean 'seed'\? known: block_size, "),
        ("learning_rate=1", r"^learning_rate: unknown field; did you mean 'optimiser\.learning_rate'\? known: "),
        ("optimiser.learning_rat=1", r"^optimiser\.learning_rat: unknown field; did you mean 'learning_rate'\?"),
        ("extra.bta=1", r"^extra\.bta: unknown field; did you mean 'betas'\?"),
        ("parts.a.bta=1", r"^parts\.a\.bta: unknown field; did you mean 'betas'\?"),
        ("parts=1", r"^parts: must be an object, got 1$"),
        ("seed=abc", r"^seed: must be a valid integer, got 'abc'$"),
        ("seed=1.5", r"^seed: .*got 1.5$"),
        ("optimiser.betas=[1]", r"^optimiser\.betas\.1: required"),
        ("optimiser.betas=[1, x]", r"^optimiser\.betas\.1: must be a valid number, got 'x'$"),
        ("optimiser=3", r"^optimiser: "),
        ("seed", "must look like field=value"),
        ("seed.a=1", "no fields"),
        ("seed={", "not valid YAML"),
    ],
)
def test_errors_name_field_value_and_remedy(override: str, message: str) -> None:
    """Catches every kind of bad input on a command line that would end in a traceback."""
    with pytest.raises(ValueError, match=message):
        load_config(Run, None, ["seed=1", override])


def test_all_wrong_fields_are_reported_at_once() -> None:
    """Catches having to run again for every mistake."""
    with pytest.raises(ValueError, match=r"seed: .*; block_size: "):
        load_config(Run, None, ["seed=x", "block_length=y"])
    with pytest.raises(ValueError, match=r"^sed: .* 'seed'\?; zz: unknown field; known: block_size, [^:]*$"):
        load_config(Run, None, ["sed=1", "zz=2"])


def test_bad_files(tmp_path: Path) -> None:
    """Catches unreadable recipes that end in a YAML traceback."""
    with pytest.raises(FileNotFoundError, match="no such recipe"):
        read_yaml(tmp_path / "none.yaml")
    for text, message in [("a: [", "not valid YAML"), ("- 1", "mapping"), ("a: 1\na: 2", "'a' is given twice")]:
        (tmp_path / "c.yaml").write_text(text)
        with pytest.raises(ValueError, match=message):
            read_yaml(tmp_path / "c.yaml")
    (tmp_path / "c.yaml").write_text("")
    assert read_yaml(tmp_path / "c.yaml") == {}


def test_scalars_mean_what_they_look_like() -> None:
    """Catches YAML 1.1: 1e-5 as a string, `no` as false, 2024-01-01 as a date."""
    texts = ["1e-5", "1.5e3", "-2", "no", "true", "null", "2024-01-01", ".5", "1.2.3", "-inf", "-.inf", "7e", "a=b"]
    got = [apply_overrides({}, [f"v={text}"])["v"] for text in texts]
    assert got == [1e-5, 1500.0, -2, "no", True, None, "2024-01-01", 0.5, "1.2.3", "-inf", float("-inf"), "7e", "a=b"]


def test_merge_replaces_components_of_another_kind() -> None:
    """Catches fields of one task leaking into another; and inputs changed behind the caller's back."""
    base = {"task": {"kind": "chain", "steps": 3}, "b": {"x": 1}}
    assert merge(base, {"task": {"kind": "sudoku4"}, "b": {"y": 2}}) == {
        "task": {"kind": "sudoku4"},
        "b": {"x": 1, "y": 2},
    }
    assert apply_overrides(base, ["task.steps=4"])["task"] == {"kind": "chain", "steps": 4}
    assert base["task"]["steps"] == 3


def test_component_without_kind_keeps_the_default_kind() -> None:
    """Overriding one field of a default component must not ask for the kind again."""
    from revelm.trainers.config import RLConfig

    words = [
        "model.path=x",
        "task=chain",
        "out=y",
        "train.steps=1",
        "objective.clip_low=0.1",
        "rollout.rule.threshold=0.5",
    ]
    config = load_config(RLConfig, None, words)
    assert config.objective == {"kind": "trace_rl", "clip_low": 0.1}
    assert config.rollout.rule == {"kind": "dynamic", "threshold": 0.5}


def test_a_part_keeps_the_defaults_of_its_own_field() -> None:
    """Catches a run that trains at another rate because its recipe said something else about the optimiser."""
    base = ["model.path=m", "out=o", "train.steps=1"]
    for schema, rate in ((SFTConfig, 1e-4), (RLConfig, 1e-6)):
        words = [*base, "task=chain", "optimizer.warmup_steps=3"]
        config = load_config(schema, None, words)
        assert (config.optimizer.learning_rate, config.optimizer.warmup_steps) == (rate, 3)
        assert load_config(schema, None, [*words, "optimizer.lr=0.5"]).optimizer.learning_rate == 0.5
