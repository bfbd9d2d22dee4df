"""The documentation against the code: fields, defaults, commands, links, imports and recipes that pages show."""

import ast
import dataclasses
import inspect
import json
import re
import shlex
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, get_args

import pytest
import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from revelm.cli.main import VERBS, build_parser, main
from revelm.core import registry
from revelm.core.config import Schema, apply_overrides, merge, parse_config
from revelm.core.validation import ALIASES
from revelm.engine.settings import Approximate, Exact
from revelm.eval.config import EvalConfig, SettingSpec
from revelm.eval.jobs import jobs_of
from revelm.trainers.config import RLConfig, SFTConfig
from revelm.trainers.curriculum import CurriculumConfig, stages_of
from tests.official_sizes import SIZES

ROOT = Path(__file__).parents[2]
DOCS = sorted((ROOT / "docs").glob("*.md"))
PAGES = [*DOCS, *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md"))]
CONFIGURATION = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
RUNS: tuple[type[Schema], ...] = (SFTConfig, RLConfig, CurriculumConfig, EvalConfig)
# Which section of configuration.md has the fields that a schema itself declares.
SECTIONS = {
    "BestSpec": "best",
    "CurriculumConfig": "revelm curriculum",
    "DataSpec": "data",
    "EndpointSpec": "reward.judge",
    "EvalConfig": "eval",
    "EvaluationSpec": "eval",
    "Expected": "expected",
    "JudgeSpec": "reward.judge",
    "LoraSpec": "model.lora",
    "ModelSpec": "model",
    "PatientSpec": "reward.judge",
    "OptimizerSpec": "optimizer",
    "RLConfig": "revelm rl",
    "RewardModelSpec": "reward.reward_model",
    "RewardSpec": "reward",
    "RolloutSpec": "rollout",
    "RunConfig": "Every run",
    "SFTConfig": "revelm sft",
    "SettingSpec": "How answers are drawn",
    "ShapingSpec": "shaping",
    "SourceSpec": "data.mix",
    "TaskEntry": "tasks",
    "TrackerSpec": "trackers",
    "TrainSpec": "train",
    "ValueSpec": "value",
}
MINIMAL = {"model": {"path": "m"}, "train": {"steps": 1}, "out": "o", "task": "chain"}


class Line(NamedTuple):
    """A row of a table of fields; ``kinds``: of which components, where the table says so."""

    name: str
    default: str
    kinds: tuple[str, ...]


def tables(page: str) -> dict[str, list[Line]]:
    """The tables of fields by the heading they stand under, which loses its backticks."""
    found: dict[str, list[Line]] = {}
    heading, is_table, has_kinds = "", False, False
    for line in page.splitlines():
        if line.startswith("#"):
            heading = line.lstrip("#").strip().replace("`", "")
        cells = [cell.strip() for cell in line.strip().strip("|").split(" | ")] if line.startswith("|") else []
        if cells[:2] == ["field", "default"]:
            is_table, has_kinds = True, cells[2] == "of"
        elif not cells:
            is_table = False
        elif is_table and not cells[0].startswith("-"):
            kinds = tuple(cells[2].split(", ")) if has_kinds else ()
            found.setdefault(heading, []).append(Line(cells[0].strip("`"), cells[1].strip("`"), kinds))
    return found


TABLES = tables(CONFIGURATION)


def schemas_of(annotation: Any) -> set[type[BaseModel]]:
    """Schemas in a type, wherever they stand in it, and those in their fields."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        inner = [field.annotation for field in annotation.model_fields.values()]
        return {annotation}.union(*(schemas_of(part) for part in inner))
    return set[type[BaseModel]]().union(*(schemas_of(part) for part in get_args(annotation)))


REACHABLE = set[type[BaseModel]]().union(*(schemas_of(run) for run in RUNS))
DECLARING = {base for found in REACHABLE for base in found.__mro__ if issubclass(base, Schema) and base is not Schema}


def written(cell: str) -> Any:
    """A default as the page has it, read like an override."""
    return apply_overrides({}, [f"x={cell}"])["x"]


def default_of(field: FieldInfo) -> Any:
    """The default of a field of a schema; PydanticUndefined where it is required."""
    return field.get_default(call_default_factory=True, validated_data={})


def plain(value: Any) -> Any:
    """A default as a recipe would say it: parts by what they set, components by name where that is all."""
    if isinstance(value, BaseModel):
        usual = {name: default_of(field) for name, field in type(value).model_fields.items()}
        return {name: plain(part) for name, part in vars(value).items() if part != usual[name]}
    if dataclasses.is_dataclass(value):
        usual = {field.name: field.default for field in dataclasses.fields(value)}
        return {name: plain(part) for name, part in vars(value).items() if part != usual[name]}
    if isinstance(value, Mapping):
        named = dict(value)
        return named["kind"] if set(named) == {"kind"} else named
    return list(value) if isinstance(value, tuple) else value


def missing(section: str, name: str, default: Any, *, is_required: bool, kind: str | None = None) -> str | None:
    """What is wrong with the row of a field; None when nothing is."""
    lines = [line for line in TABLES.get(section, []) if line.name == name and (kind is None or kind in line.kinds)]
    where = f"docs/configuration.md, {section}: {name}{f' of {kind}' if kind else ''}"
    if len(lines) != 1:
        return f"{where} has {len(lines)} rows"
    if is_required or lines[0].default == "required":
        is_same = is_required and lines[0].default == "required"
    else:
        is_same = written(lines[0].default) == plain(default)
    return None if is_same else f"{where} has the default {lines[0].default}, it is {plain(default)!r}"


@pytest.mark.parametrize("schema", sorted(DECLARING, key=lambda found: found.__name__), ids=lambda s: s.__name__)
def test_every_field_of_a_run_stands_with_its_default_in_the_configuration_page(schema: type[BaseModel]) -> None:
    """Catches a field that was added, or a default that was changed, and not told to anyone."""
    assert schema.__name__ in SECTIONS, "name its section of docs/configuration.md here, and write it"
    errors = []
    for name in inspect.get_annotations(schema):
        field = schema.model_fields.get(name)
        if field is not None:
            default = default_of(field)
            is_required = default is PydanticUndefined
            errors.append(missing(SECTIONS[schema.__name__], name, default, is_required=is_required))
    assert [error for error in errors if error] == []


def test_no_table_of_the_configuration_page_has_a_field_that_is_none() -> None:
    """Catches a field that was renamed or removed, and is still promised."""
    known: dict[str, set[str]] = {}
    for schema in DECLARING:
        known.setdefault(SECTIONS[schema.__name__], set()).update(schema.model_fields)
    stray = [
        (section, line.name)
        for section, lines in TABLES.items()
        for line in lines
        if not line.kinds and line.name not in known.get(section, set())
    ]
    assert stray == []


def components() -> Iterator[tuple[str, str]]:
    """Axis and kind of what is registered and has its fields on the configuration page."""
    axes = ("objectives", "tasks", "rewards", "executors")
    return ((axis, kind) for axis in axes for kind in registry.names(axis))


@pytest.mark.parametrize(("axis", "kind"), list(components()), ids=str)
def test_every_field_of_an_objective_or_task_stands_in_the_configuration_page(axis: str, kind: str) -> None:
    """Catches an option of a method that cannot be found, or stands there with another default."""
    family = "SFT" if kind.endswith("_sft") and kind != "rejection_sft" else "RL"
    sections = {"objectives": f"Objectives of {family}", "rewards": "reward.parts"}
    section = sections.get(axis, axis.capitalize())
    fields = {f.name: f.default for f in dataclasses.fields(registry.resolve(axis, kind)) if f.init}
    errors = [
        missing(section, name, default, is_required=default is dataclasses.MISSING, kind=kind)
        for name, default in fields.items()
    ]
    assert [error for error in errors if error] == []
    told = {line.name for line in TABLES[section] if kind in line.kinds}
    assert told - set(fields) == set()


def test_rules_caches_and_other_names_are_told() -> None:
    """Catches a rule, a cache or another name for a field that no page mentions."""
    decoding, engine, caches = (
        (ROOT / "docs" / f"{name}.md").read_text("utf-8") for name in ("decoding", "engine", "caches")
    )
    for kind in registry.names("rules"):
        names = [f.name for f in dataclasses.fields(registry.resolve("rules", kind))]
        assert [name for name in (kind, *names) if f"`{name}`" not in decoding] == []
    told = engine + caches
    assert [f.name for cache in (Exact, Approximate) for f in dataclasses.fields(cache) if f.name not in told] == []
    assert [name for name in {*ALIASES, *ALIASES.values()} if f"`{name}`" not in CONFIGURATION] == []


def blocks(page: Path, *languages: str) -> list[str]:
    """The fenced blocks of a page in these languages."""
    text = page.read_text(encoding="utf-8")
    return [
        code for language, code in re.findall(r"^```(\w+)[^\n]*\n(.*?)^```", text, re.M | re.S) if language in languages
    ]


def recipe_errors(block: Mapping[str, Any]) -> str:
    """What keeps part of a recipe from being one of any kind; "" when nothing does."""
    errors = []
    for read, rest in (
        (partial(parse_config, SFTConfig), MINIMAL),
        (partial(parse_config, RLConfig), {**MINIMAL, "value": {}} if "reward" in block else MINIMAL),
        (
            lambda given: stages_of(parse_config(CurriculumConfig, given)),
            {"model": {"path": "m"}, "out": "o", "task": "chain"},
        ),
        (lambda given: jobs_of(parse_config(EvalConfig, given)), {"model": "m"}),
        (lambda given: jobs_of(parse_config(EvalConfig, given)), {"model": "m", "task": "chain"}),
        (partial(parse_config, SettingSpec), {}),
    ):
        try:
            read(merge(rest, block))
        except ValueError as error:
            errors.append(str(error))
        else:
            return ""
    return "; ".join(errors)


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_recipes_on_a_page_are_ones(page: Path) -> None:
    """Catches a recipe on a page with a field that is called otherwise, or a value that is refused."""
    for code in blocks(page, "yaml"):
        block = yaml.safe_load(code)
        assert recipe_errors(block) == "", code


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_commands_on_a_page_are_ones(page: Path) -> None:
    """Catches a verb or an option that does not exist, in the words users copy."""
    for code in blocks(page, "sh", "bash"):
        for line in code.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            if words[:1] != ["revelm"]:
                continue
            rest = build_parser().parse_known_args(words[1:])[1]
            assert [word for word in rest if "=" not in word or word.startswith("-")] == [], line


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_imports_on_a_page_exist(page: Path) -> None:
    """Catches an example that fails in its first line."""
    for code in blocks(page, "python"):
        for node in ast.walk(ast.parse(code)):
            if isinstance(node, ast.Import | ast.ImportFrom):
                exec(ast.unparse(node), {})


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_links_to_files_lead_somewhere(page: Path) -> None:
    """Catches a page or a picture that was renamed, in files that the builder of the pages does not see."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    links = [link.partition("#")[0] for link in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in link]
    assert [link for link in links if link and not (page.parent / link).exists()] == []


def test_every_page_is_in_the_navigation_and_every_verb_in_the_readme() -> None:
    """Catches a page that nobody finds, and a command that is kept secret."""
    shown = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    assert [page.name for page in DOCS if f": {page.name}" not in shown] == []
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    verbs = [verb.__name__.rpartition(".")[2] for verb in VERBS]
    spelt = {"train": "sft", "evaluate": "eval", "listing": "ls"}
    assert [verb for verb in verbs if f"revelm {spelt.get(verb, verb)}" not in readme] == []


def test_the_plan_in_the_readme_is_what_the_command_says(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Catches numbers of an earlier version."""
    (tmp_path / "config.json").write_text(json.dumps(SIZES["sdar-1.7b"]), encoding="utf-8")
    recipe = str(ROOT / "recipes" / "sft-chain.yaml")
    words = ["plan", recipe, f"model.path={tmp_path}", "--row-length", "1024", "--memory", "24GiB"]
    assert main(words) == 3
    said = [line.rstrip() for line in capsys.readouterr().out.strip().splitlines()]
    shown = (ROOT / "README.md").read_text(encoding="utf-8").split("```text\nsdar: ")[1].partition("\n```")[0]
    assert f"sdar: {shown}".splitlines() == said
