r"""Units behind (or, for money, in front of) an answer: taken off, and brought to one spelling.

A unit is ``\text{}`` of at most four words, a product of such, or a bare word behind a number. What has no unit agrees
with any; two units agree if they are the same powers of the same words, after abbreviations and plurals: m/s, m s^{-1},
meters per second. Nothing is converted: 1 m is not 100 cm. Bare letters ("50 m/s") can be factors as well: they are a
unit only where the other side has the same one in ``\text{}``, or as an answer to a plain number (``split_units``).
"""

import re
from collections.abc import Iterator
from typing import NamedTuple

from revelm.rewards.math_words import says_number

_ALIASES = {
    "percent": "% percentage pct",
    "degree": "° deg",
    "dollar": "¤ usd buck",
    "cent": "¢ penny pennies",
    "euro": "€ eur",
    "pound sterling": "£ gbp",
    "rupee": "₹ inr",
    "yen": "¥ 円 元 yuan rmb cny jpy",
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
_SHORT = {"cm", "mm", "km", "kg", "ft", "in", "lb", "oz"}
_BARE = sorted((a for a in _CANONICAL if (len(a) > 2 or a in _SHORT) and a.isalpha()), key=len, reverse=True)
_MAX_WORDS = 4
SCALES = {"hundred": 2, "thousand": 3, "million": 6, "billion": 9, "trillion": 12}  # powers of ten, no units
# No unit has them, and what they begin is another answer: "3 unless five".
_HEDGES = {
    *(
        "or",
        "unless",
        "not",
        "if",
        "maybe",
        "perhaps",
        "possibly",
        "either",
        "but",
        "except",
        "otherwise",
        "else",
        "then",
    ),
    *("alternatively", "could", "may", "might", "versus", "vs", "through", "than", "oder", "ou", "или"),
}
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
_POWER = r"(?:\s*\^\s*\{?\s*(?P<power>-?[1-4])\s*\}?)?"
_RAISED = r"(?:\s*\^\s*(?:\{\s*-?[1-4]\s*\}|-?[1-4]))?"
_TEXT = r"\\text\{(?:[^{}\d,;^]|\^-?[1-4]){1,60}\}" + _RAISED
_JOINT = r"\s*+(?:(?:/|\*|\\cdot(?![a-zA-Z]))\s*+)?"  # possessive, as below: each text is cut in one way alone
_IN_TEXT = re.compile(rf"^(?P<body>.*?[^\s\\/*])\s*(?P<unit>{_TEXT}(?:{_JOINT}{_TEXT})*+)$", re.DOTALL)
_BARE_WORD = re.compile(
    r"^(?P<body>.*[\d})¤%])\s*(?P<unit>(?:"
    + "|".join(map(re.escape, _BARE))
    + r")s?\.?(?:\s*/\s*[a-z]+)?)"
    + _POWER
    + "$",
    re.IGNORECASE,
)
_WORDS = re.compile(r"^(?P<body>-?[\d.,/ ]*\d)\s+(?P<unit>[A-Za-z]{3,}(?:[ -][A-Za-z]+){0,3})" + _POWER + "$")
_QUOTIENT = re.compile(r"\\frac\s*\{\s*(\\text\{[^{}]*\})\s*\}\s*\{\s*(\\text\{[^{}]*\})\s*\}$")
_THERMAL = re.compile(r"^(?P<body>.+?)\s*°\s*(?:\\text\{\s*)?(?P<unit>[CF])\s*\}?$", re.DOTALL)
_HAN = re.compile(r"^(?P<body>.*\d)\s*(?:\\text\{\s*)?(?P<unit>[\u4e00-\u9fff]{1,3})\s*\}?$")
_OTHER_HAN = re.compile("[或和与及零一二三四五六七八九十百千万亿]")  # or, and, numbers
_DEGREES = ("degree", "celsius", "fahrenheit")
_SIGN = re.compile(r"^(?P<body>(?:(?!\\(?:sin|cos|tan|cot|sec|csc)).)+?)\s*(?P<unit>[%°€£₹¢])$", re.DOTALL)
_MONEY = re.compile(r"^(?P<minus>-?)\s*(?P<unit>[¤€£₹¥])\s*(?P<body>.+)$", re.DOTALL)
_MONEY_BEHIND = re.compile(r"^(?P<body>.+\d)\s*(?P<unit>¤)$")
# A product of letters behind a number, which may be a unit: "m/s", "\frac{m}{s}", "m s^{-1}".
_LETTERS = rf"[a-zA-Z]{{1,12}}+{_RAISED}"
_BARE_PRODUCT = re.compile(
    rf"^(?P<body>.*?[\d}})])\s*(?P<unit>{_LETTERS}(?:{_JOINT}{_LETTERS})*+|\\frac\{{\s*{_LETTERS}\s*\}}\{{\s*{_LETTERS}\s*\}})$"
)
_PIECES = re.compile(r"\^\s*\{?\s*(-?\d)\s*\}?|(/|\bper\b)|\\cdot|[\\*{}~]|([^\s\\/*^{}~]+)")
_TIMES = {"square": 2, "sq": 2, "cubic": 3, "cu": 3}
_TIMES_BEHIND = {"squared": "2", "cubed": "3"}
_FILLERS = {"the", "a", "an", "of", "about", "exactly", "approximately", "more", "total", "in"}
_MEGA = re.compile(r"\bM(?=[A-Z][a-z]?\b|eV\b)")  # small letters would make it milli


class Measured(NamedTuple):
    """An answer without its unit; ``unit`` "" where it has none."""

    body: str
    unit: str


def split_units(reference: str, answer: str) -> tuple[Measured, Measured]:
    """Take the units off two spellings. Bare letters are one where the other side has the same unit in ``\\text{}``,
    or no unit and no letters at all: an answer of "50 m/s" to 50."""
    first, second = split_unit(reference), split_unit(answer)
    if not first.unit and second.unit:
        first = _like(first, second.unit)
    if not second.unit:
        is_plain = re.search(r"[a-zA-Z\\]", first.body) is None
        second = _like(second, first.unit or None) if first.unit or is_plain else second
    return first, second


def split_unit(spelled: str) -> Measured:
    """Take the unit off a spelling. An answer that is nothing but words has none."""
    if money := _MONEY.match(spelled) or _MONEY_BEHIND.match(spelled):
        inner = split_unit(money["body"])
        minus = money.groupdict().get("minus") or ""
        return Measured(minus + inner.body, _canonical(money["unit"]))
    spelled = _QUOTIENT.sub(r"\1/\2", spelled)
    if thermal := _THERMAL.match(spelled):
        return Measured(thermal["body"], "celsius" if thermal["unit"] == "C" else "fahrenheit")
    if (counted := _HAN.match(spelled)) and _OTHER_HAN.search(counted["unit"]) is None:
        return Measured(counted["body"], _canonical(counted["unit"]))
    for pattern in (_SIGN, _IN_TEXT, _BARE_WORD, _WORDS):
        found = pattern.match(spelled)
        if found is None:
            continue
        unit = found["unit"].replace(r"\text", " ")
        words = [word.strip("{}.,~").lower() for word in unit.split() if word.strip("{}.,~")]
        is_other = not _HEDGES.isdisjoint(words) or says_number(words) or _OTHER_HAN.search(unit) is not None
        if len(words) > _MAX_WORDS or (words and words[0] in _NOT_UNITS) or is_other:
            continue
        body = found["body"].strip()
        if words and words[0].removesuffix("s") in SCALES:
            return Measured(f"{body} {words[0]}", _canonical(" ".join(words[1:])))
        power = found.groupdict().get("power")
        return Measured(body, _canonical(f"{unit}^{power}" if power else unit))
    return Measured(spelled, "")


def units_agree(first: str, second: str) -> bool:
    """Whether two units may belong to one answer: one of them is not given, or they are the same."""
    is_warmth = "degree" in (first, second) and first in _DEGREES and second in _DEGREES
    return not first or not second or first == second or is_warmth


def _like(measured: Measured, unit: str | None) -> Measured:
    """With the letters at its end taken off, where they are that unit; None: any quotient of units that are known."""
    found = _BARE_PRODUCT.match(measured.body)
    if measured.unit or found is None:
        return measured
    letters = re.sub(r"\\frac\s*\{(.*)\}\{(.*)\}", r"\1/\2", found["unit"])
    is_unit = _canonical(letters) == unit if unit else "/" in letters and _is_known(letters)
    return Measured(found["body"].strip(), _canonical(letters)) if is_unit else measured


def _is_known(letters: str) -> bool:
    return all(word[3].lower() in _CANONICAL for word in _PIECES.finditer(letters) if word[3])


def _canonical(unit: str) -> str:
    """A unit as powers of words in alphabetical order; "" for none."""
    powers: dict[str, int] = {}
    for words, power in _factors(_MEGA.sub("mega", unit)):
        for word in _named(words):
            for name, sign in zip(word.split("/"), (1, -1), strict=False):
                powers[name] = powers.get(name, 0) + sign * power
    powers.pop("", None)
    return " ".join(f"{name}^{power}" if power != 1 else name for name, power in sorted(powers.items()) if power)


def _factors(unit: str) -> Iterator[tuple[list[str], int]]:
    """The runs of words between signs and powers, each with its power; the power is that of the last word."""
    words: list[str] = []
    sign, times = 1, 1
    for piece in _PIECES.finditer(unit.lower().replace(".", "")):
        if piece[3] in _TIMES:
            times = _TIMES[piece[3]]
        elif power := piece[1] or _TIMES_BEHIND.get(piece[3] or ""):
            yield words[:-1], sign
            yield words[-1:], sign * times * int(power)
            words, times = [], 1
        elif piece[3]:
            words.append(piece[3])
        elif piece[2]:
            yield words, sign * times
            words, sign, times = [], -1, 1
    yield words, sign * times


def _named(words: list[str]) -> list[str]:
    """The units that words are: all of them where each is known, otherwise the last one, which the others describe."""
    kept = [word for k, word in enumerate(words) if word not in _FILLERS or k == len(words) - 1]
    named = [_word(word) for word in kept]
    return named if all(name in _ALIASES for name in named) else named[-1:]


def _word(word: str) -> str:
    for form in (word, word.removesuffix("s"), word.removesuffix("es")):
        if form in _CANONICAL:
            return _CANONICAL[form]
    return word.removesuffix("s") if len(word) > 3 else word
