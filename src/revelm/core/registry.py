"""Names to classes: one visible table per axis, imported only when a name is used.

A component is a frozen dataclass whose fields are its configuration. ``{"kind": "block_sft", "weight": 2}`` builds
the class that the table names; ``{"kind": "my_pkg.losses:Mine"}`` builds a class outside the tree, unregistered.
"""

import dataclasses
from collections.abc import Mapping
from importlib import import_module
from typing import Any

from revelm.core.validation import choices, dotted, nearest, rename_aliases, unknown_fields, validate

__all__ = [
    "AXES",
    "EXECUTORS",
    "MODELS",
    "OBJECTIVES",
    "REWARDS",
    "RULES",
    "TASKS",
    "build",
    "names",
    "nearest",
    "resolve",
    "summary",
]

MODELS = {
    "dream": "revelm.models.dream:Dream",
    "fast_dllm": "revelm.models.fast_dllm:FastDLLM",
    "llada": "revelm.models.llada:LLaDA",
    "llada2_moe": "revelm.models.llada2_moe:LLaDA2Moe",
    "llada_moe": "revelm.models.llada_moe:LLaDAMoe",
    "llama": "revelm.models.llama:Llama",
    "mmada": "revelm.models.mmada:MMaDA",
    "qwen2": "revelm.models.qwen2:Qwen2",
    "qwen3": "revelm.models.qwen3:Qwen3",
    "qwen3_moe": "revelm.models.qwen3_moe:Qwen3Moe",
    "sdar": "revelm.models.sdar:SDAR",
    "sdar_moe": "revelm.models.sdar_moe:SDARMoe",
}
OBJECTIVES = {
    "ar_sft": "revelm.objectives.ar_sft:ARSFT",
    "block_sft": "revelm.objectives.block_sft:BlockSFT",
    "coupled_rl": "revelm.objectives.coupled_rl:CoupledRL",
    "diffu_grpo": "revelm.objectives.diffu_grpo:DiffuGRPO",
    "random_mask_rl": "revelm.objectives.random_mask_rl:RandomMaskRL",
    "random_mask_sft": "revelm.objectives.random_mask_sft:RandomMaskSFT",
    "rejection_sft": "revelm.objectives.rejection_sft:RejectionSFT",
    "semi_ar_sft": "revelm.objectives.semi_ar_sft:SemiARSFT",
    "trace_rl": "revelm.objectives.trace_rl:TraceRL",
    "trace_sft": "revelm.objectives.trace_sft:TraceSFT",
}
TASKS = {
    "aime2024": "revelm.tasks.competitions:AIME2024",
    "aime2025": "revelm.tasks.competitions:AIME2025",
    "amc23": "revelm.tasks.competitions:AMC23",
    "apps": "revelm.tasks.code_collections:Apps",
    "chain": "revelm.tasks.chain:Chain",
    "code": "revelm.tasks.code:Code",
    "countdown": "revelm.tasks.countdown:Countdown",
    "custom": "revelm.tasks.custom:Custom",
    "gpqa": "revelm.tasks.gpqa:GPQA",
    "gsm8k": "revelm.tasks.gsm8k:GSM8K",
    "humaneval": "revelm.tasks.humaneval:HumanEval",
    "humaneval_plus": "revelm.tasks.humaneval:HumanEvalPlus",
    "livebench_coding": "revelm.tasks.livecodebench:LiveBenchCoding",
    "livecodebench": "revelm.tasks.livecodebench:LiveCodeBench",
    "math": "revelm.tasks.math:Math",
    "math500": "revelm.tasks.math500:Math500",
    "mbpp": "revelm.tasks.mbpp:Mbpp",
    "mbpp_plus": "revelm.tasks.mbpp:MbppPlus",
    "minerva": "revelm.tasks.minerva:Minerva",
    "multiple_choice": "revelm.tasks.multiple_choice:MultipleChoice",
    "olympiadbench": "revelm.tasks.olympiadbench:OlympiadBench",
    "primeintellect": "revelm.tasks.code_collections:PrimeIntellect",
    "sudoku": "revelm.tasks.sudoku:Sudoku",
    "sudoku4": "revelm.tasks.sudoku4:Sudoku4",
}
RULES = {
    "credit": "revelm.decoding.credit:Credit",
    "dynamic": "revelm.decoding.dynamic:Dynamic",
    "entropy_bounded": "revelm.decoding.entropy_bounded:EntropyBounded",
    "factor": "revelm.decoding.factor:Factor",
    "hierarchical": "revelm.decoding.hierarchical:Hierarchical",
    "joint": "revelm.decoding.joint:Joint",
    "random": "revelm.decoding.random:Random",
    "sequential": "revelm.decoding.sequential:Sequential",
    "static": "revelm.decoding.static:Static",
    "untempered": "revelm.decoding.untempered:Untempered",
}
REWARDS = {
    "choice": "revelm.rewards.choice:Choice",
    "cosine_length": "revelm.rewards.length:CosineLength",
    "exact": "revelm.rewards.exact_match:Exact",
    "format": "revelm.rewards.answer_format:Format",
    "function": "revelm.rollout.reward_functions:Function",
    "fuzzy": "revelm.rewards.fuzzy_match:Fuzzy",
    "judge_outcome": "revelm.rollout.outcome_judge:JudgeOutcome",
    "length": "revelm.rewards.length:Length",
    "regex": "revelm.rewards.regex_match:Regex",
    "task": "revelm.rewards.task_score:TaskScore",
    "tokens_per_forward": "revelm.rewards.speed:TokensPerForward",
}
EXECUTORS = {
    "e2b": "revelm.rewards.sandbox.http_e2b:E2B",
    "local": "revelm.rewards.sandbox.executors:Local",
    "sandbox_fusion": "revelm.rewards.sandbox.http_fusion:SandboxFusion",
}
AXES = {
    "models": MODELS,
    "objectives": OBJECTIVES,
    "tasks": TASKS,
    "rules": RULES,
    "rewards": REWARDS,
    "executors": EXECUTORS,
}


def names(axis: str) -> list[str]:
    """Registered names of ``axis``, one of ``AXES``, sorted."""
    return sorted(_table(axis))


def build(axis: str, spec: Mapping[str, Any] | str, *, field: str | None = None) -> Any:
    """The component that ``spec`` describes: a name, or ``{"kind": name or "module:Class", **fields}``.

    ``field`` is how errors address the spec (default: the axis in the singular). Raises ValueError for an unknown
    kind or field, with the nearest known one, and for values of the wrong type.
    """
    where = field or axis.removesuffix("s")
    if isinstance(spec, str):
        spec = {"kind": spec}
    if not isinstance(spec, Mapping):
        raise ValueError(f"{where}: must be a name or a mapping with 'kind', got {spec!r}")
    if "kind" not in spec:
        raise ValueError(f"{where}.kind: required, but not given; known: {', '.join(names(axis))}")
    kind = resolve(axis, spec["kind"], field=f"{where}.kind")
    known = [f.name for f in dataclasses.fields(kind) if f.init]
    values = rename_aliases({k: v for k, v in spec.items() if k != "kind"}, known, where)
    wrong = [dotted(where, name) for name in values if name not in known]
    if wrong:
        remedy = (
            f"; {where}={spec['kind']} begins with its defaults, where {where}.kind keeps the fields of another kind"
        )
        raise ValueError(unknown_fields(wrong, known) + (remedy if len(wrong) > 1 else ""))
    return validate(kind, values, where=where)


def resolve(axis: str, kind: str, *, field: str | None = None) -> type[Any]:
    """The class behind ``kind``, a registered name or "module:Class". ValueError when there is none."""
    table, where = _table(axis), field or f"{axis.removesuffix('s')}.kind"
    address = table.get(kind) if isinstance(kind, str) else None
    if address is None:
        if not isinstance(kind, str) or ":" not in kind:
            raise ValueError(f"{where}: {kind!r} is not known{choices(str(kind), table)}, or 'package.module:Class'")
        address = kind
    module, _, name = address.partition(":")
    found = _load(module, name, where)
    if not (isinstance(found, type) and dataclasses.is_dataclass(found)):
        raise ValueError(f"{where}: {address!r} is not a dataclass; components are frozen dataclasses")
    return found


def summary(axis: str) -> dict[str, str]:
    """Registered name -> "module:Class", sorted by name; imports nothing."""
    return dict(sorted(_table(axis).items()))


def _table(axis: str) -> dict[str, str]:
    if axis not in AXES:
        raise ValueError(f"axis: {axis!r} is not known{choices(axis, AXES)}")
    return AXES[axis]


def _load(module: str, name: str, where: str) -> Any:
    """Attribute ``name`` of ``module``. A module that fails inside itself raises its own error, unchanged."""
    try:
        found = vars(import_module(module)).get(name)
    except ModuleNotFoundError as error:
        if error.name is None or not (module == error.name or module.startswith(error.name + ".")):
            raise
        remedy = (
            f"; a function in a file is {{kind: function, path: {module}:{name}}}" if module.endswith(".py") else ""
        )
        raise ValueError(f"{where}: no module named {error.name!r} (from {module}:{name}){remedy}") from error
    if found is None:
        raise ValueError(f"{where}: module {module!r} has no class {name!r}")
    return found
