r"""Answers made from a gold answer: the same answer in other words, and answers that are near it and wrong.

Each kind of candidate is a function that gives the changed answer, or None where the gold has nothing to change in that
way. Whether a candidate is right is known by how it was made. Golds are changed as text, so only those whose form is
plain are touched.
"""

import random
import re
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction

_NUMBER = re.compile(r"-?\d+(?:\.\d+)?")
_INTEGER = re.compile(r"-?\d+")
_FRACTION = re.compile(r"(-?)\\[dt]?frac\{(\d+)\}\{(\d+)\}")
_PAIR = re.compile(r"([(\[])([^()\[\]]+),([^()\[\],]+)([)\]])")
_LIST = re.compile(r"[^()\[\]{}=<>$]+(?:,[^()\[\]{}=<>$]+)+")
_SUM = re.compile(r"([^-+()\[\]{},=<>$]+)\+([^-+()\[\]{},=<>$]+)")
_FORMULA = re.compile(r"[^,=<>%$:]*")
_NOT_FORMULA = re.compile(
    r" or |\\(?:text|mbox|begin|in|cup|[lg]eq?|infty|circ|pm)(?![a-zA-Z])|_\{?\d+\}?$|[A-Za-z]{3,}"
)
_NAMED = re.compile(r"[a-z](?:\([a-z]\))?\s*=([^=,]+)")
_EQUATION = re.compile(r"([^=,<>$]*[xyz][^=,<>$]*)=([^=,<>$]+)")
_MEASURED = re.compile(r"(-?[\d.]+)\s*\\(?:text|mbox)\{[^{}]+\}(?:\^\d)?\.?")
Change = Callable[[str, random.Random], str | None]


def is_formula(gold: str) -> bool:
    """Whether a gold is one formula that can be set in parentheses."""
    bare = re.sub(r"\\[a-zA-Z]+", "", gold)
    return bool(_FORMULA.fullmatch(gold)) and not _NOT_FORMULA.search(gold) and not re.search("[a-zA-Z]{3,}", bare)


def _is_number(gold: str) -> bool:
    return bool(_NUMBER.fullmatch(gold) or _FRACTION.fullmatch(gold))


def _fraction(gold: str, form: str) -> str | None:
    found = _FRACTION.fullmatch(gold)
    return form.format(*found.groups()) if found else None


def _decimal(gold: str, _: random.Random) -> str | None:
    found = _FRACTION.fullmatch(gold)
    if found is None or int(found[3]) == 0:
        return None
    value = Fraction(int(found[2]), int(found[3]))
    rest = value.denominator
    for factor in (2, 5):
        while rest % factor == 0:
            rest //= factor
    return f"{found[1]}{Decimal(value.numerator) / Decimal(value.denominator)}" if rest == 1 else None


def _thousands(gold: str, comma: str) -> str | None:
    if not _INTEGER.fullmatch(gold) or len(gold.lstrip("-")) < 4:
        return None
    return f"{int(gold):,}".replace(",", comma)


def _as_fraction(gold: str, _: random.Random) -> str | None:
    if not re.fullmatch(r"-?\d*\.\d+", gold):
        return None
    value = Fraction(gold)
    return f"\\frac{{{value.numerator}}}{{{value.denominator}}}"


def _sized(gold: str, _: random.Random) -> str | None:
    if "\\left" in gold or not re.search(r"[(\[]", gold):
        return None
    return re.sub(r"([)\]])", r"\\right\1", re.sub(r"([(\[])", r"\\left\1", gold))


def _reordered(gold: str, rng: random.Random) -> str | None:
    if not _LIST.fullmatch(gold) or re.search(r"\d,\d{3}(?!\d)|\\text|\\,|\\!", gold):
        return None
    items = [item.strip() for item in gold.split(",")]
    return ", ".join(items[1:] + items[:1]) if rng.random() < 0.5 else ", ".join(items[::-1])


def _turned(gold: str, _: random.Random) -> str | None:
    found = _SUM.fullmatch(gold) if is_formula(gold) else None
    return f"{found[2].strip()}+{found[1].strip()}" if found else None


RIGHT: dict[str, Change] = {
    "dfrac": lambda gold, _: gold.replace("\\frac", "\\dfrac") if "\\frac" in gold else None,
    "tfrac": lambda gold, _: gold.replace("\\frac", "\\tfrac") if "\\frac" in gold else None,
    "a/b": lambda gold, _: _fraction(gold, "{0}{1}/{2}"),
    "fraction expanded": lambda gold, _: (
        f"{f[1]}\\frac{{{3 * int(f[2])}}}{{{3 * int(f[3])}}}" if (f := _FRACTION.fullmatch(gold)) else None
    ),
    "decimal": _decimal,
    "as a fraction": _as_fraction,
    "trailing zero": lambda gold, _: f"{gold}.00" if _INTEGER.fullmatch(gold) else None,
    "thousands 1,234": lambda gold, _: _thousands(gold, ","),
    "thousands 1{,}234": lambda gold, _: _thousands(gold, "{,}"),
    "dollar sign": lambda gold, _: f"\\${gold}" if re.fullmatch(r"\d+(\.\d+)?", gold) else None,
    "unit in text": lambda gold, _: f"{gold}\\text{{ cm}}" if _is_number(gold) else None,
    "bare unit": lambda gold, _: f"{gold} apples" if _NUMBER.fullmatch(gold) else None,
    "bare unit m/s": lambda gold, _: f"{gold} m/s" if _NUMBER.fullmatch(gold) else None,
    "degrees": lambda gold, _: f"{gold}^\\circ" if _NUMBER.fullmatch(gold) else None,
    "in text": lambda gold, _: f"\\text{{{gold}}}" if re.fullmatch(r"[-\w ]+", gold) else None,
    "text taken off": lambda gold, _: m[1].strip() if (m := re.fullmatch(r"\\text\{([A-Za-z ]+)\}", gold)) else None,
    "bold": lambda gold, _: f"\\mathbf{{{gold}}}" if _NUMBER.fullmatch(gold) else None,
    "left right": _sized,
    "spaces": lambda gold, _: (
        gold.replace(",", ",\\ ") if "," in gold and not re.search(r"\d,\d{3}|\{,|!", gold) else None
    ),
    "x =": lambda gold, _: f"x = {gold}" if is_formula(gold) and "x" not in gold else None,
    "dollars around": lambda gold, _: f"${gold}$" if "$" not in gold else None,
    "in parentheses": lambda gold, _: f"({gold})" if is_formula(gold) else None,
    "list reordered": _reordered,
    "list as a set": lambda gold, rng: f"\\{{{gold}\\}}" if _reordered(gold, rng) else None,
    "sum reordered": _turned,
    "product turned": lambda gold, _: (
        f"{m[2]} \\cdot {m[1]}" if (m := re.fullmatch(r"(\d+)(\\sqrt\{\d+\}|\\pi|[a-z])", gold)) else None
    ),
    "and for a comma": lambda gold, rng: " and ".join(gold.rsplit(",", 1)) if _reordered(gold, rng) else None,
    "as an inequality": lambda gold, _: _between(gold, "{1}{0}x{3}{2}"),
    "set of what holds": lambda gold, _: _between(gold, "\\{{x \\mid {1}{0}x{3}{2}\\}}"),
    "union turned": lambda gold, _: (
        " \\cup ".join(gold.split("\\cup")[::-1]) if "\\cup" in gold and not re.search(r"[=$]|\\in ", gold) else None
    ),
    "signs spread": lambda gold, _: (
        f"{gold.replace(chr(92) + 'pm', '+')}, {gold.replace(chr(92) + 'pm', '-')}"
        if gold.count("\\pm") == 1 and not re.search("[,;=(]", gold)
        else None
    ),
    "bmatrix": lambda gold, _: gold.replace("pmatrix", "bmatrix") if "pmatrix" in gold else None,
    "degrees taken off": lambda gold, _: (
        m[1] if (m := re.fullmatch(r"(-?[\d.]+)\^(?:\\circ|\{\\circ\})", gold)) else None
    ),
    "percent taken off": lambda gold, _: m[1] if (m := re.fullmatch(r"(-?[\d.]+)\s*\\%", gold)) else None,
    "unit taken off": lambda gold, _: m[1] if (m := _MEASURED.fullmatch(gold)) else None,
    "name taken off": lambda gold, _: m[1].strip() if (m := _NAMED.fullmatch(gold)) else None,
    "equation turned": lambda gold, _: (
        f"{m[2]} = {m[1]}" if (m := _EQUATION.fullmatch(gold)) and "\\text" not in gold else None
    ),
    "full stop": lambda gold, _: f"{gold}." if not gold.endswith(".") else None,
}


def _between(gold: str, form: str) -> str | None:
    """An interval as what holds of its members: its bounds, and the signs of order beside them."""
    found = _PAIR.fullmatch(gold.replace("\\left", "").replace("\\right", "").replace("\\infty", "INF"))
    if found is None or ((found[1] + found[4]) == "()" and not re.search("INF", gold.replace("\\infty", "INF"))):
        return None  # "(1, 2)" may be a point
    low, high = found[2].strip(), found[3].strip()
    signs = ["<" if bracket in "()" else "\\le " for bracket in (found[1], found[4])]
    if "INF" in low:
        return None if "INF" in high else form.format("", "", high, signs[1])
    return form.format(signs[0], low, *(("", "") if "INF" in high else (high, signs[1])))


def _sign(gold: str, _: random.Random) -> str | None:
    if gold.strip("0.") == "" or not (is_formula(gold) or _is_number(gold)) or "\\pm" in gold:
        return None
    return gold[1:] if _is_number(gold) and gold.startswith("-") else f"-({gold})"


def _digit(gold: str, rng: random.Random) -> str | None:
    places = [m.start() for m in re.finditer(r"\d", re.sub(r"_\{?\d+\}?", lambda m: "#" * len(m[0]), gold))]
    if not places or "\\begin{array}" in gold:
        return None
    place = rng.choice(places)
    new = rng.choice([d for d in "123456789" if d != gold[place]])
    return gold[:place] + new + gold[place + 1 :]


def _swapped(gold: str, _: random.Random) -> str | None:
    found = _FRACTION.fullmatch(gold)
    if found is None or found[2] == found[3] or int(found[2]) == 0:
        return None
    return f"{found[1]}\\frac{{{found[3]}}}{{{found[2]}}}"


def _end(gold: str, rng: random.Random) -> str | None:
    if not _PAIR.fullmatch(gold):
        return None
    other = {"(": "[", "[": "(", ")": "]", "]": ")"}
    return other[gold[0]] + gold[1:] if rng.random() < 0.5 else gold[:-1] + other[gold[-1]]


def _member(gold: str, rng: random.Random) -> str | None:
    if "," not in gold or re.search(r"\d,\d{3}|\\text|\\begin", gold):
        return None
    numbers = list(re.finditer(r"(?<![_^\d{])\d+(?![\d}])", gold))
    if not numbers:
        return None
    found = rng.choice(numbers)
    return f"{gold[: found.start()]}{int(found[0]) + 1}{gold[found.end() :]}"


def _shorter(gold: str, _: random.Random) -> str | None:
    return gold.rpartition(",")[0].strip() if _LIST.fullmatch(gold) and not re.search(r"\d,\d{3}", gold) else None


WRONG: dict[str, Change] = {
    "sign": _sign,
    "a digit": _digit,
    "fraction upside down": _swapped,
    "end of an interval": _end,
    "a member changed": _member,
    "a member missing": _shorter,
    "a member more": lambda gold, rng: f"{gold}, 17" if _NUMBER.fullmatch(gold) and gold != "17" else None,
    "tuple turned": lambda gold, _: (
        f"({m[3].strip()}, {m[2].strip()})"
        if (m := re.fullmatch(r"(\()([^(),]+),([^(),]+)\)", gold)) and m[2].strip() != m[3].strip()
        else None
    ),
    "factor missing": lambda gold, _: gold[1:] if re.match(r"[2-9](?:[a-zA-Z(]|\\(?:sqrt|pi))", gold) else None,
    "root missing": lambda gold, _: gold.replace("\\sqrt", "", 1) if re.search(r"\\sqrt\{\d+\}", gold) else None,
    "plus one": lambda gold, _: f"{gold}+1" if is_formula(gold) and not _is_number(gold) else None,
    "hedged": lambda gold, _: f"{gold} \\text{{ or }} 17" if is_formula(gold) and gold != "17" else None,
    "a bound missing": lambda gold, _: gold.rpartition("\\cup")[0].strip() if "\\cup" in gold else None,
    "another unit": lambda gold, _: f"{m[1]}\\text{{ litres}}" if (m := _MEASURED.fullmatch(gold)) else None,
    "not worked out": lambda gold, _: f"{int(gold) - 2}+1+1" if _INTEGER.fullmatch(gold) else None,
    "rows as columns": lambda gold, _: (
        gold.replace("\\\\", " & ") if "\\begin{pmatrix}" in gold and "&" not in gold and "\\\\" in gold else None
    ),
    "two answers": lambda gold, _: f"{gold}\\text{{ and }}{int(gold) + 1}" if _INTEGER.fullmatch(gold) else None,
    "power": lambda gold, _: f"{gold}^2" if re.fullmatch(r"\d+", gold) and gold not in ("0", "1") else None,
    "ten times": lambda gold, _: f"{gold}0" if _INTEGER.fullmatch(gold) and gold != "0" else None,
    "per cent": lambda gold, _: f"{gold}\\%" if _INTEGER.fullmatch(gold) and gold != "0" else None,
}


def candidates(gold: str, others: list[str], rng: random.Random) -> list[tuple[str, bool, str]]:
    """What can be made of a gold: the kind of change, whether it is right, and the answer. ``others``: other golds."""
    found = []
    for table, is_right in ((RIGHT, True), (WRONG, False)):
        for kind, change in table.items():
            answer = change(gold, rng)
            if answer is not None and (is_right or answer.strip() != gold.strip()):
                found.append((kind, is_right, answer))
    shape = shape_of(gold)
    near = [o for o in others if o.replace(" ", "") != gold.replace(" ", "") and shape_of(o) == shape]
    if near:
        found.append(("another gold", False, rng.choice(near)))
    return found


def shape_of(gold: str) -> str:
    """A gold with its digits and small letters made alike, to find others that look like it."""
    return re.sub(r"\d+", "1", gold).replace(" ", "")
