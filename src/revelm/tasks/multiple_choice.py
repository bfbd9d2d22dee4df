r"""``multiple_choice``: questions with lettered options, one of them right, answered by its letter in a box.

A row of the file has ``question``, ``choices`` (or ``options``: a list of texts, or ``{"text": [...], "label":
[...]}``) and ``answer`` (or ``ground_truth_answer``, ``answerKey``): the label of the right option, its letter, or its
number counted from 0. The options are shuffled, for each problem once and for ever the same, so that no letter is a
good guess; those of a question whose options speak of each other ("both A and B", "all of the above") stay where they
are.

The score is 1 for the right letter, ``format_reward`` for a box that holds the letter of another option, and 0
otherwise: an early signal for models that do not know yet how to answer. A letter counts as it is usually written:
``B``, ``b``, ``B.``, ``(B)``, ``\\text{B}``, ``B. the option``. Without a file the problems are a small
sample that comes with the package.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from string import ascii_uppercase

from revelm.core.seeds import derive_seed
from revelm.core.types import Completion, Demonstration, Problem, Score
from revelm.data.rows import Row
from revelm.rewards.spelling import letter
from revelm.tasks.chats import USER, in_words
from revelm.tasks.data_source import sample_file
from revelm.tasks.demonstrations import worked_demonstrations
from revelm.tasks.file_splits import Files, check_files, file_problems
from revelm.tasks.lettered_options import MAX_OPTIONS, arranged, lettered, score_letter
from revelm.tasks.problem_files import find_fields
from revelm.tasks.task import Messages, check_split

INSTRUCTION = "Think it through, and put the letter of the right option within \\boxed{}."
_CHOICES = ("choices", "options")
_ANSWERS = ("answer", "ground_truth_answer", "answerKey")


@dataclass(frozen=True)
class MultipleChoice:
    """Questions with options from JSON Lines.

    ``data``: the training file; ``test_data``: the test file, or else ``test_share`` of the questions in ``data``.
    ``format_reward``: the score of a well-formed wrong answer. ``is_shuffled``: whether options change places, by
    ``seed``, where they do not speak of each other. ``id_field``: a column that names the problems (default: their
    number). ``max_bad_rows``: rows of a file that may be left out because they cannot be used. ``instruction``: what
    follows each question; with ``{question}``, all words.
    """

    data: str | None = None
    test_data: str | None = None
    test_share: float = 0.2
    seed: int = 0
    is_shuffled: bool = True
    format_reward: float = 0.1
    id_field: str | None = None
    max_bad_rows: int = 0
    instruction: str = INSTRUCTION

    def __post_init__(self) -> None:
        """Raises ValueError for a field outside its range."""
        if not 0.0 <= self.format_reward < 1.0:
            raise ValueError(f"format_reward={self.format_reward}: expected 0 up to 1, what a right answer gets")
        check_files(self._files)

    @property
    def _files(self) -> Files:
        sample = sample_file("multiple_choice")
        return Files(self.data, self.test_data, self.test_share, sample, self.id_field, self.max_bad_rows)

    @property
    def name(self) -> str:
        """The short name under which results are reported."""
        return "multiple_choice"

    def problems(self, split: str) -> Sequence[Problem]:
        """The problems of "train" or "test"; see `Task.problems`. ``info["options"]``: the options as asked."""
        check_split(split)
        return file_problems(self._files, split, task=self.name, read=self._problem)

    def prompt(self, problem: Problem) -> Messages:
        """The question, the lettered options, one a line, and the instruction."""
        return [{"role": USER, "content": in_words(f"{problem.question}\n{lettered(problem)}", self.instruction)}]

    def score(self, problem: Problem, completion: Completion) -> Score:
        """1, ``format_reward`` or 0; breakdown: ``correct``, ``format`` (the box holds the letter of an option)."""
        return score_letter(problem, completion.text, format_reward=self.format_reward)

    def answer(self, problem: Problem, completion: Completion) -> str | None:
        """The letter in the last box; see `AnswerTask.answer`."""
        return letter(completion.text)

    def worked(self, problem: Problem) -> str:
        """The boxed letter alone: rows do not say why, so demonstrations teach the form of an answer, not reasoning."""
        return f"\\boxed{{{problem.reference}}}"

    def demonstrations(self, num: int, seed: int) -> list[Demonstration]:
        """``num`` worked training problems; see `worked_demonstrations`."""
        return worked_demonstrations(self, num, seed=seed)

    def _problem(self, row: Row, name: str) -> Problem:
        (choices_field,) = find_fields(row, [(field,) for field in _CHOICES])
        (answer_field,) = find_fields(row, [(field,) for field in _ANSWERS])
        options, labels = _options(row, choices_field)
        right = _right_option(row, answer_field, labels)
        seed = derive_seed(self.name, "options", self.seed, name) if self.is_shuffled else None
        shown, letter = arranged(options, right, seed=seed)
        return Problem(name, row.text("question"), letter, {"options": shown})


def _options(row: Row, field: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Texts and labels of the options; letters where they have no labels of their own."""
    value = row.fields[field]
    inner = replace(row, fields=value) if isinstance(value, dict) else row
    options = inner.texts("text" if isinstance(value, dict) else field)
    if not 2 <= len(options) <= MAX_OPTIONS:
        raise row.error(field, f"has {len(options)} options; expected 2 to {MAX_OPTIONS}")
    if len(set(options)) != len(options):
        raise row.error(field, "has the same option twice, so that one answer would count as wrong; remove one")
    has_labels = isinstance(value, dict) and "label" in value
    labels = inner.texts("label") if has_labels else tuple(ascii_uppercase[: len(options)])
    if len(labels) != len(options) or len(set(labels)) != len(labels):
        raise row.error(field, f"has labels {', '.join(labels)} for {len(options)} options; give each its own")
    return options, labels


def _right_option(row: Row, field: str, labels: tuple[str, ...]) -> int:
    """The place of the right option, given by label, or by number from 0 where no label is meant."""
    answer = row.text(field)
    if answer in labels:
        return labels.index(answer)
    if answer.isdecimal() and int(answer) < len(labels) and not any(label.isdecimal() for label in labels):
        return int(answer)
    last = len(labels) - 1
    raise row.error(field, f"{answer[:40]!r} is none of {', '.join(labels)}, nor a number from 0 to {last}")
