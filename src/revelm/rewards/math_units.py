r"""Units behind (or, for money, in front of) an answer: taken off, and brought to one spelling.

A unit is a word in ``\text{}`` of at most four words, or a bare word behind a number. What has no unit agrees with any;
two units agree if they are spelt alike after abbreviations and plurals. Nothing is converted: 1 m is not 100 cm.
"""

import re
from typing import NamedTuple

_ALIASES = {
    "percent": "% percentage pct",
    "degree": "° deg",
    "dollar": "¤ usd buck",
    "cent": "¢ penny pennies",
    "euro": "€ eur",
    "pound sterling": "£ gbp",
    "rupee": "₹ inr",
    "meter": "m metre",
    "centimeter": "cm centimetre",
    "millimeter": "mm millimetre",
    "kilometer": "km kilometre",
    "inch": "in inche",
    "foot": "ft feet",
    "yard": "yd",
    "mile": "mi",
    "gram": "g gramme",
    "kilogram": "kg kilogramme",
    "milligram": "mg",
    "pound": "lb",
    "ounce": "oz",
    "liter": "l litre",
    "milliliter": "ml millilitre",
    "second": "s sec",
    "minute": "min",
    "hour": "h hr",
    "day": "",
    "week": "wk",
    "month": "",
    "year": "yr",
    "mile/hour": "mph",
    "kilometer/hour": "kph kmh",
    "radian": "rad",
    "newton": "n",
    "joule": "j",
    "watt": "w",
    "kelvin": "k",
    "hertz": "hz",
    "volt": "v",
    "ampere": "a amp",
    "mole": "mol",
    "person": "people",
    "child": "children",
    "man": "men",
    "woman": "women",
    "": "unit",
}
_CANONICAL = {alias: name for name, aliases in _ALIASES.items() for alias in (name, *aliases.split())}
# Bare words that behind a number are units in any case; "2mg" and "3m" are products unless in \text.
_SHORT = {"cm", "mm", "km", "kg", "ft", "lb", "oz"}
_BARE = sorted((a for a in _CANONICAL if (len(a) > 2 or a in _SHORT) and a.isalpha()), key=len, reverse=True)
SCALES = {"hundred": 2, "thousand": 3, "million": 6, "billion": 9, "trillion": 12}  # powers of ten, no units
# No unit has them, and what they begin is another answer: "3 unless five".
_HEDGES = {"or", "unless", "not", "if", "maybe", "perhaps", "possibly", "either", "but", "except", "otherwise"}
_NOT_UNITS = {
    "pi",
    "and",
    "or",
    "mod",
    "if",
    "for",
    "where",
    "is",
    "not",
    "to",
    "sqrt",
    "log",
    "ln",
    "sin",
    "cos",
    "tan",
}
_POWER = r"(?:\s*\^\s*\{?(?P<power>[23])\}?)?"
_IN_TEXT = re.compile(r"^(?P<body>.*[^\s\\])\s*\\text\{(?P<unit>[^{}\d,;]{1,60})\}" + _POWER + "$", re.DOTALL)
_BARE_WORD = re.compile(
    r"^(?P<body>.*[\d})¤%])\s*(?P<unit>(?:"
    + "|".join(map(re.escape, _BARE))
    + r")s?\.?(?:\s*/\s*[a-z]+)?)"
    + _POWER
    + "$",
    re.IGNORECASE,
)
_WORDS = re.compile(r"^(?P<body>-?[\d.,/ ]*\d)\s+(?P<unit>[A-Za-z]{3,}(?:[ -][A-Za-z]+){0,3})" + _POWER + "$")
_SIGN = re.compile(r"^(?P<body>(?:(?!\\(?:sin|cos|tan|cot|sec|csc)).)+?)\s*(?P<unit>[%°€£₹¢])$", re.DOTALL)
_MONEY = re.compile(r"^(?P<minus>-?)\s*(?P<unit>[¤€£₹])\s*(?P<body>.+)$", re.DOTALL)
_MONEY_BEHIND = re.compile(r"^(?P<body>.+\d)\s*(?P<unit>¤)$")
_AREAS = (("square ", "^2"), ("sq ", "^2"), ("cubic ", "^3"), ("cu ", "^3"))
_FILLERS = {"the", "a", "an", "of", "about", "exactly", "approximately", "more", "total", "in", "per"}


class Measured(NamedTuple):
    """An answer without its unit; ``unit`` "" where it has none."""

    body: str
    unit: str


def split_unit(spelled: str) -> Measured:
    """Take the unit off a spelling. An answer that is nothing but words has none."""
    if money := _MONEY.match(spelled) or _MONEY_BEHIND.match(spelled):
        inner = split_unit(money["body"])
        minus = money.groupdict().get("minus") or ""
        return Measured(minus + inner.body, _canonical(money["unit"], None))
    for pattern in (_SIGN, _IN_TEXT, _BARE_WORD, _WORDS):
        found = pattern.match(spelled)
        if found is None:
            continue
        words = found["unit"].split()
        lowered = [word.lower().strip(".,") for word in words]
        if len(words) > 4 or (words and lowered[0] in _NOT_UNITS) or not _HEDGES.isdisjoint(lowered):
            continue
        body = found["body"].strip()
        if words and words[0].lower().removesuffix("s") in SCALES:
            scaled = f"{body} {words[0].lower()}"
            return Measured(scaled, _canonical(" ".join(words[1:]), None))
        return Measured(body, _canonical(found["unit"], found.groupdict().get("power")))
    return Measured(spelled, "")


def units_agree(first: str, second: str) -> bool:
    """Whether two units may belong to one answer: one of them is not given, or they are the same."""
    return not first or not second or first == second


def _canonical(unit: str, power: str | None) -> str:
    text = unit.lower().replace(".", "").replace("\\", " ").strip(" ~")
    suffix = f"^{power}" if power else ""
    for word, raised in _AREAS:
        if text.startswith(word):
            text, suffix = text.removeprefix(word), raised
    parts = [
        " ".join(_word(word) for word in part.split() if word not in _FILLERS) for part in re.split(r"/| per ", text)
    ]
    known = [part if part in _ALIASES else part.rpartition(" ")[2] for part in parts]
    if not known[0]:
        return ""
    return "/".join(known) + suffix


def _word(word: str) -> str:
    for form in (word, word.removesuffix("s"), word.removesuffix("es")):
        if form in _CANONICAL:
            return _CANONICAL[form]
    return word.removesuffix("s") if len(word) > 3 else word
