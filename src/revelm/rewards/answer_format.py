r"""Whether an answer has the form that was asked for: tags, a box, or a regular expression for the whole text."""

import re
from dataclasses import dataclass

from revelm.rewards.boxed import last_boxed
from revelm.rewards.reward import Judged

_NAME = re.compile(r"[A-Za-z][\w-]*")


def has_tags(text: str, tags: tuple[str, ...]) -> bool:
    """Whether ``text`` is ``<a>...</a>`` for each of ``tags``, once each, in this order, with blanks between them."""
    place = 0
    for tag in tags:
        opening, closing = f"<{tag}>", f"</{tag}>"
        if text.count(opening) != 1 or text.count(closing) != 1:
            return False
        start, end = text.find(opening), text.find(closing)
        if start < place or end < start or text[place:start].strip():
            return False
        place = end + len(closing)
    return not text[place:].strip()


@dataclass(frozen=True)
class Format:
    """1 for an answer of the right form, else 0. At least one of the three has to be asked for.

    ``tags``: the text is made of these, such as [think, answer], once each and in this order. ``pattern``: a regular
    expression for the whole text, in which ``.`` stands for line breaks as well. ``has_box``: there is a
    ``\\boxed{...}`` that is not empty, within the last tag if there are tags.
    """

    tags: tuple[str, ...] = ()
    pattern: str | None = None
    has_box: bool = False

    def __post_init__(self) -> None:
        """Raises ValueError where nothing is asked for, or something that cannot be."""
        if not (self.tags or self.pattern or self.has_box):
            raise ValueError("a format of nothing; give tags, pattern or has_box")
        wrong = [tag for tag in self.tags if not _NAME.fullmatch(tag)]
        if wrong or len(set(self.tags)) != len(self.tags):
            raise ValueError(f"tags={list(self.tags)}: expected different names of letters, such as [think, answer]")
        if self.pattern is not None:
            try:
                re.compile(self.pattern)
            except re.error as error:
                raise ValueError(f"pattern={self.pattern!r}: no regular expression ({error})") from error

    def rate(self, answer: Judged) -> float | None:
        """1 or 0."""
        text = answer.completion.text
        if self.tags and not has_tags(text, self.tags):
            return 0.0
        if self.pattern is not None and re.fullmatch(self.pattern, text.strip(), re.DOTALL) is None:
            return 0.0
        place = text.rpartition(f"<{self.tags[-1]}>")[2] if self.tags else text
        return float(not self.has_box or bool((last_boxed(place) or "").strip()))
