r"""``gpqa``: 198 questions of graduate science with four options (GPQA diamond, arXiv 2311.12022), for the test alone.

A row has ``Question``, ``Correct Answer`` and ``Incorrect Answer 1`` to ``3``, as the public CSV file and its copy on
the hub have them. The authors ask not to publish the questions: the hub wants a login and consent to its terms, and the
sample is of our own. Options are shuffled, for each question once and for ever the same, wherever it stands in a file.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from revelm.core.seeds import derive_seed
from revelm.core.types import Completion, Demonstration, Problem, Score
from revelm.data.rows import Row
from revelm.rewards.spelling import letter
from revelm.tasks.chats import THOUGHT_END, opening_of
from revelm.tasks.data_source import problem_source
from revelm.tasks.demonstrations import worked_demonstrations
from revelm.tasks.file_splits import read_problems
from revelm.tasks.lettered_options import arranged, lettered, score_letter
from revelm.tasks.math_benchmark import Style, styled_prompt
from revelm.tasks.task import Messages, check_split

HUB = "Idavidrein/gpqa:gpqa_diamond[train]"
INSTRUCTIONS: dict[str, str] = {
    "boxed": "Please reason step by step, and put the letter of the right option, and nothing else, within \\boxed{}.",
    "instruction_first": "You need to put the letter of the right option in \\boxed{}. This is the problem:",
}
_WRONG = ("Incorrect Answer 1", "Incorrect Answer 2", "Incorrect Answer 3")


@dataclass(frozen=True)
class GPQA:
    """Questions of graduate science.

    ``data``: the test, as a file or a data set of the hub; None: its public copy on the hub, behind a login; "sample":
    a few questions of our own. ``seed``: of the order of the options. ``style``: how it is asked (see
    `revelm.tasks.math_benchmark`). ``instruction``: other words for it; with ``{question}``, all words.
    """

    data: str | None = None
    seed: int = 0
    style: Style = "boxed"
    instruction: str | None = None

    @property
    def name(self) -> str:
        """The short name under which results are reported."""
        return "gpqa"

    def problems(self, split: str) -> Sequence[Problem]:
        """The problems of "test"; "train" has none. ``info["options"]``: the options as asked."""
        check_split(split)
        source = problem_source(self.data, hub=HUB, task=self.name)
        return [] if split == "train" else read_problems(source, self.name, read=self._problem)

    def prompt(self, problem: Problem) -> Messages:
        """The question, the lettered options, one a line, and the instruction, as the style has them."""
        question = f"{problem.question}\n{lettered(problem)}"
        return styled_prompt(question, self.style, self.instruction, usual=INSTRUCTIONS)

    def score(self, problem: Problem, completion: Completion) -> Score:
        """1 for the right letter in the last box; breakdown: ``correct``, ``format``."""
        return score_letter(problem, opening_of(self.prompt(problem)) + completion.text, format_reward=0.0)

    def answer(self, problem: Problem, completion: Completion) -> str | None:
        """The letter in the last box; see `AnswerTask.answer`."""
        return letter(opening_of(self.prompt(problem)) + completion.text)

    def worked(self, problem: Problem) -> str:
        """The boxed letter."""
        return (THOUGHT_END if self.style == "think" else "") + f"\\boxed{{{problem.reference}}}"

    def demonstrations(self, num: int, seed: int) -> list[Demonstration]:
        """None: there are no training problems."""
        return worked_demonstrations(self, num, seed=seed)

    def _problem(self, row: Row, name: str) -> Problem:
        question = row.text("Question")
        options = [row.number_or_text(field) for field in ("Correct Answer", *_WRONG)]
        shown, letter = arranged(options, 0, seed=derive_seed(self.name, "options", self.seed, question))
        group = row.optional_text("High-level domain")
        return Problem(name, question, letter, {"options": shown, **({"group": group} if group else {})})
