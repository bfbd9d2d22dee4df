"""Run configuration: a YAML file, dotted overrides, one typed schema, and one readable error.

Schemas are pydantic models with ``extra="forbid"`` and ``frozen=True`` (inherit ``Schema``). A field of type
``Spec`` holds a component: ``chain`` is short for ``{kind: chain}``. Later sources win: defaults, file, overrides.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_args, get_origin

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict
from pydantic.fields import FieldInfo

from revelm.core.atomic import write_text_atomic
from revelm.core.validation import ALIASES, dotted, rename_aliases, unknown_fields, validate


def _as_spec(value: Any) -> Any:
    return {"kind": value} if isinstance(value, str) else value


S = TypeVar("S", bound=BaseModel)
Spec = Annotated[dict[str, Any], BeforeValidator(_as_spec)]


class Schema(BaseModel):
    """Base of every run schema: unknown keys are refused, values never change."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def read_yaml(path: str | Path) -> dict[str, Any]:
    """The mapping in the YAML file ``path``. FileNotFoundError or ValueError say what is wrong with the file."""
    file = Path(path)
    if not file.is_file():
        raise FileNotFoundError(f"{file}: no such recipe file")
    try:
        content = yaml.load(file.read_text(encoding="utf-8"), Loader=_Loader)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{file}: not valid YAML: {' '.join(str(error).split())}") from error
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise ValueError(f"{file}: must hold a mapping of fields, holds a {type(content).__name__}")
    return content


def apply_overrides(config: Mapping[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """``config`` with each ``"a.b=value"`` applied in order; values are read as YAML. The input is not changed.

    A name on the way counts as a component: after ``task=chain``, ``task.data=F`` gives ``{kind: chain, data: F}``.
    Raises ValueError for an override without "=", and for a path through something that has no fields.
    """
    result = merge({}, config)
    for override in overrides:
        path, equals, text = override.partition("=")
        keys = path.strip().split(".")
        if not equals or not all(keys):
            raise ValueError(f"override {override!r}: must look like field=value or part.field=value")
        node: dict[str, Any] = result
        for depth, key in enumerate(keys[:-1]):
            child = _as_spec(node.get(key, {}))
            child = {} if child is None else child
            if not isinstance(child, dict):
                raise ValueError(f"override {override!r}: {dotted(*keys[: depth + 1])} is {child!r}, it has no fields")
            node[key] = child
            node = child
        _drop_synonyms(node, keys[-1])
        node[keys[-1]] = _parse(text, override)
    return result


def _drop_synonyms(node: dict[str, Any], key: str) -> None:
    """Forget what ``node`` says under another name for ``key``, so that an override by either name wins.

    Not in components: one from outside the tree may have both names, for different things.
    """
    if "kind" not in node:
        for other in [name for name in node if name != key and ALIASES.get(name, name) == ALIASES.get(key, key)]:
            del node[other]


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """A deep copy of ``base`` with ``over`` laid on top. A component of another kind replaces the one below."""
    result = {key: merge(value, {}) if isinstance(value, Mapping) else value for key, value in base.items()}
    for key, value in over.items():
        below = result.get(key)
        if isinstance(value, Mapping):
            is_same = isinstance(below, dict) and value.get("kind", below.get("kind")) == below.get("kind")
            result[key] = merge(below if isinstance(below, dict) and is_same else {}, value)
        else:
            result[key] = value
    return result


def load_config(
    schema: type[S],
    path: str | Path | None,
    overrides: Sequence[str],
    *,
    defaults: Mapping[str, Any] | None = None,
) -> S:
    """A ``schema`` instance from ``defaults``, the YAML file ``path`` and dotted ``overrides``, later ones winning.

    Raises ValueError, one sentence per wrong field: dotted field, value, reason, nearest known key.
    """
    content = read_yaml(path) if path is not None else {}
    return parse_config(schema, apply_overrides(merge(defaults or {}, content), overrides))


def parse_config(schema: type[S], values: Mapping[str, Any]) -> S:
    """``values`` as a ``schema`` instance; errors as in ``load_config``."""
    return validate(schema, _prepared(schema, values, ""))


def dump_yaml(model: BaseModel, path: str | Path) -> None:
    """Write the resolved configuration, every default included, so that ``load_config`` reads back the same."""
    text = yaml.safe_dump(model.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
    write_text_atomic(path, text)


def _prepared(schema: type[BaseModel], values: Mapping[str, Any], where: str) -> dict[str, Any]:
    """``values`` with synonyms renamed, level by level; ValueError for fields that do not exist."""
    known = schema.model_fields
    renamed = rename_aliases(values, known, where)
    if wrong := [str(key) for key in renamed if key not in known]:
        places = {dotted(where, key): found for key in wrong if (found := _inside(known, key, where))}
        raise ValueError(unknown_fields([dotted(where, key) for key in wrong], known, places=places))
    filled = {key: _with_default_kind(known[key], value) for key, value in renamed.items()}
    ready = {key: _prepared_field(known[key].annotation, value, dotted(where, key)) for key, value in filled.items()}
    return {key: _over_default(known[key], value) for key, value in ready.items()}


def _inside(fields: Mapping[str, FieldInfo], name: str, where: str) -> str:
    """Which parts of a schema have a field called ``name``, or what that is short for; "" where none has."""
    own = ALIASES.get(name, name)
    kinds = {part: field.annotation for part, field in fields.items()}
    having = [p for p, k in kinds.items() if isinstance(k, type) and issubclass(k, BaseModel) and own in k.model_fields]
    return " or ".join(repr(dotted(where, part, own)) for part in having)


def _over_default(field: FieldInfo, value: Any) -> Any:
    """A part of which some fields are given keeps what the default of this very field says about the others."""
    default = field.get_default(call_default_factory=True, validated_data={})
    if isinstance(value, Mapping) and isinstance(default, BaseModel):
        return {**default.model_dump(exclude_unset=True), **value}
    return value


def _with_default_kind(field: FieldInfo, value: Any) -> Any:
    """A component given without its kind is of the field's default kind, so that ``objective.clip_low=0.1`` works."""
    default = field.get_default(call_default_factory=True, validated_data={})
    if isinstance(value, Mapping) and "kind" not in value and isinstance(default, Mapping) and "kind" in default:
        return {"kind": default["kind"], **value}
    return value


def _prepared_field(annotation: Any, value: Any, where: str) -> Any:
    """A field's value, prepared where it holds a schema: directly, in a union with None, or as values of a dict.

    A name in such a dict with nothing behind it, ``gsm8k:``, has all defaults.
    """
    if not isinstance(value, Mapping):
        return value
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return _prepared(annotation, value, where)
    members = [member for member in get_args(annotation) if member is not type(None)]
    if get_origin(annotation) is dict:
        is_schema = isinstance(members[1], type) and issubclass(members[1], BaseModel)
        given = {key: {} if item is None and is_schema else item for key, item in value.items()}
        return {key: _prepared_field(members[1], item, dotted(where, key)) for key, item in given.items()}
    return _prepared_field(members[0], value, where) if len(members) == 1 else value


def _parse(text: str, override: str) -> Any:
    try:
        return yaml.load(text, Loader=_Loader)
    except yaml.YAMLError as error:
        raise ValueError(f"override {override!r}: value is not valid YAML") from error


class _Loader(yaml.SafeLoader):
    """Safe YAML where ``1e-5`` is a number, ``on`` and ``no`` are words, and a repeated key is an error."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """As the parent does, after checking that no key comes twice."""
        seen = set()
        for key_node, _ in node.value:
            key = key_node.value
            if key in seen:
                raise yaml.constructor.ConstructorError(None, None, f"key {key!r} is given twice", key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep=deep)


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in pairs if not tag.endswith((":bool", ":float", ":timestamp"))]
    for first, pairs in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_BOOL = r"^(?:true|True|TRUE|false|False|FALSE)$"
_FLOAT = (
    r"^[-+]?(?:\.[0-9]+|[0-9]+\.[0-9]*|[0-9]+(?=[eE]))(?:[eE][-+]?[0-9]+)?$|^[-+]?\.(?:inf|Inf|INF)$|^\.(?:nan|NaN)$"
)
_Loader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile(_BOOL), list("tTfF"))
_Loader.add_implicit_resolver("tag:yaml.org,2002:float", re.compile(_FLOAT), list("-+.0123456789"))
