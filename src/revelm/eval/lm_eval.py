"""``python -m revelm.eval.lm_eval``: the command line of lm-evaluation-harness, with our model and our tasks.

Arguments are the harness's own. ``--model revelm`` is known, and the tasks of ``lm_eval_tasks`` beside its own ones;
``--device`` is "cpu" where there is no CUDA and nothing else is said.
"""

import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import torch

TASKS = Path(__file__).parent / "lm_eval_tasks"
"""Where our task files are: ``TaskManager(include_path=TASKS)``."""


def arguments(given: Sequence[str], *, has_cuda: bool) -> list[str]:
    """``given`` with what the harness has to be told beside it."""
    words = list(given)
    if {"-h", "--help"} & set(words) or words[:1] == ["run"] == words:
        return words
    names = [word.partition("=")[0] for word in words]
    if "--include_path" not in names:
        words += ["--include_path", str(TASKS)]
    is_run = words[0] not in ("ls", "list", "validate")
    if is_run and "--device" not in names and not has_cuda:
        words += ["--device", "cpu"]
    return words


def main() -> int:
    """Run the harness on the arguments of this process."""
    if find_spec("lm_eval") is None:
        sys.stderr.write("error: lm-evaluation-harness is not installed: pip install 'revelm[eval]'\n")
        return 2
    from lm_eval.__main__ import cli_evaluate

    import revelm.eval.lm_eval_model  # noqa: F401 - registers the model

    if len(sys.argv) > 1:
        sys.argv[1:] = arguments(sys.argv[1:], has_cuda=torch.cuda.is_available())
    cli_evaluate()
    return 0


if __name__ == "__main__":
    sys.exit(main())
