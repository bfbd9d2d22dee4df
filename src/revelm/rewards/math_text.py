r"""One spelling for what LaTeX and Unicode can write in many ways.

``spell`` unifies commands, signs, spaces and braces, so that everything behind it reads one form: ``\frac{a}{b}``,
``\sqrt{a}``, ``\le``, ``\cdot``, ``%``, ``°`` for degrees, ``¤`` for dollars, ``\text{...}`` for words, no ``\left``
and no dollar signs around formulas. Nothing that carries meaning is dropped: commas, percents, units, brackets stay.
``key`` is a spelling without blanks and superfluous braces; two answers with one key are the same.
"""

import re

from revelm.rewards.math_unicode import in_ascii

# A command that only says how something looks; its argument, where it has one, stays.
_LOOKS = re.compile(
    r"\\(?:displaystyle|textstyle|scriptstyle|limits|nolimits|mathstrut|strut|phantom\s*-|nonumber|quad|qquad|big|Big"
    r"|bigg|Bigg|bigl|bigr|Bigl|Bigr|biggl|biggr|Biggl|Biggr|middle|left\.|right\.|left|right|large|Large|LARGE|huge|Huge|small"
    r"|checkmark|blacksquare|(?:bf|it|rm|sf|tt)(?!\s*\{))(?![a-zA-Z])|(?<!\\)\\[()\[\]]"
    r"|\\(?:hspace|vspace|kern|label|tag|[hv]?phantom)\*?\{[^{}]*\}"
)
_SPACES = re.compile(r"(?<!\\)\\[,;:>\s]|~")  # not the end of a row and the blank behind it
_TEXT = re.compile(
    r"\\(?:text|mbox|hbox|textbf|textit|textrm|texttt|textsf|textnormal|textup|emph|mathrm|rm|mathit|mathsf|mathtt)\s*"
    r"\{([^{}]*)\}"
)
_TEXT_POWER = re.compile(r"(\\(?:mathrm|text|rm)\s*\{[^{}]*\^)\{\s*(-?\d)\s*\}")  # m s^{-1}
_LETTER = re.compile("[^\\W\\d_]")
_UPRIGHT = re.compile(r"\\(?:mathrm|text|rm)\s*\{\s*([ei])\s*\}")  # the constants
_ROW_GAP = re.compile(r"\\\\\s*\[\s*-?[\d.]+\s*(?:pt|em|ex|mm|cm)\s*\]")
_INFIX = re.compile(r"\{([^{}]*)\\(over|choose)(?![a-zA-Z])([^{}]*)\}")
_INFIX_NAMES = {"over": "frac", "choose": "binom"}
_SYSTEM = re.compile(r"\\begin\{(cases|aligned|align\*?|gathered|split)\}(.*)\\end\{\1\}", re.DOTALL)
_NAMED_ROW = re.compile(r"\s*[a-zA-Z](?:_\{?\w\}?)?\s*&?\s*=")
_COLOUR = re.compile(r"\\(?:textcolor|color|colorbox)\s*\{[^{}]*\}")
_UNDERLINED = re.compile(r"\\underline\s*\{([^{}]*)\}")
_BOLD = re.compile(r"\\(?:mathbf|boldsymbol|bm|bold|vec|mathcal|operatorname|mathop)\s*\{([^{}]*)\}")
_BOLD_LETTER = re.compile(r"\\(?:mathbf|boldsymbol|bm|vec)\s+([a-zA-Z])(?![a-zA-Z])")
_SCRIPT_TEXT = re.compile(r"([_^])\{?\s*\\text\{([^{}]*)\}\s*\}?")
_NAMES = {
    **dict.fromkeys(("dfrac", "tfrac", "cfrac", "nicefrac", "sfrac"), "frac"),
    **dict.fromkeys(("dbinom", "tbinom", "choose"), "binom"),
    **dict.fromkeys(("times", "ast", "bullet"), "cdot"),
    **dict.fromkeys(("leq", "leqslant", "leqq"), "le"),
    **dict.fromkeys(("geq", "geqslant", "geqq"), "ge"),
    **dict.fromkeys(("neq", "not="), "ne"),
    **dict.fromkeys(("simeq", "thickapprox", "doteq"), "approx"),
    "lbrace": "{",
    "rbrace": "}",
    "varnothing": "emptyset",
    "bigcup": "cup",
    "bigcap": "cap",
    "infin": "infty",
    "mid": "|",
    "lvert": "|",
    "rvert": "|",
    "vert": "|",
    "land": "text{and}",
    "lor": "text{or}",
    "lg": "log_{10}",
    "varphi": "phi",
    "varepsilon": "epsilon",
    "backslash": "setminus",
    "arctg": "arctan",
    "tg": "tan",
    "ctg": "cot",
}
_NAMED = re.compile(
    r"\\(" + "|".join(re.escape(name) for name in sorted(_NAMES, key=len, reverse=True)) + r")(?![a-zA-Z])"
)
_PLAIN = {
    "lt": "<",
    "gt": ">",
    "langle": "(",
    "rangle": ")",
    "lparen": "(",
    "rparen": ")",
    "lbrack": "[",
    "rbrack": "]",
    "degree": "°",
    "degrees": "°",
    "circ": "°",
    "prime": "'",
    "colon": ":",
    "div": "/",
    "dots": "...",
    "ldots": "...",
}
_PLAINLY = re.compile(r"\\(" + "|".join(_PLAIN) + r")(?![a-zA-Z])")
_ASCII = ((">=", r"\ge "), ("<=", r"\le "), ("!=", r"\ne "), ("**", "^"), (r"\backslash", r"\setminus"))
_DOUBLED = re.compile(r"\\\\(?=[a-zA-Z%${])")
_FIRST_BARE = re.compile(r"\\frac\s*(\d|[a-zA-Z]|\\pi(?![a-zA-Z]))\s*(?=[\d{\\a-zA-Z])")
_SECOND_BARE = re.compile(r"\\frac\s*(\{(?:[^{}]|\{[^{}]*\})*\})\s*(\d|[a-zA-Z]|\\[a-zA-Z]+)")
_ROOT = re.compile(r"\\sqrt\s*(\[[^\[\]]*\])?\s*(\d+|[a-zA-Z]|\\pi)")
_ROOT_PARENS = re.compile(r"\\sqrt\s*\(([^()]*)\)")
_DEGREE = re.compile(r"\s*\^\s*(?:\{\s*°\s*\}|°)|\s*°")
_THOUSANDS = re.compile(r"(?<=\d)(?:\{,\}|,\s*\\!|\\!\s*,|,\\,)\s*(?=\d{3}(?!\d))")
_WORD_SUBSCRIPTS = {
    "two": "2",
    "three": "3",
    "four": "4",
    "five": "5",
    "six": "6",
    "seven": "7",
    "eight": "8",
    "nine": "9",
}
_WHOLE_TEXT = re.compile(r"\\text\{([^{}\\]*)\}")
_WORD = re.compile("[^\\W\\d_]{2}")
_COUNTED = re.compile(r"\\text\{\s*(-?[\d.,]*\d)\s+([A-Za-z][A-Za-z ]*)\.?\s*\}")  # "12 ways"
_MARKED = re.compile(r"(\*\*|`|\")(.+)\1")
_INFINITY = re.compile(
    r"\\text\{\s*(?:positive )?infinity\s*\}|(?<![a-zA-Z\\])inf(?:ini)?ty(?![a-zA-Z])", re.IGNORECASE
)
_SO = re.compile(r"^(?:\\(?:approx|therefore|implies|Rightarrow)(?![a-zA-Z])|=)\s*")
_ABOUT = re.compile(
    r"\\text\{\s*(?:approximately|about|roughly)\s*\}\s*|(?:approximately|about|roughly)\s+", re.IGNORECASE
)
_ORDINAL = re.compile(r"(?<=[\da-zA-Z])\s*\^\s*\{\s*(?:st|nd|rd|th)\s*\}|(?<=\d)th(?![a-zA-Z])")
_UNITED = re.compile(r"(?<=[)\]])\s*U\s*(?=[(\[])")
_IN_BASE = re.compile(
    r"\(?([\dA-F]+)\)?\s*(?:_\s*\{?\s*\(?\s*(?:base\s*)?(\d+)\s*\)?\s*\}?"
    r"|\(?\\text\{\s*\(?(?:in )?base\s*(\d*)\s*\)?\s*\}\s*(\d*)\)?)"
)


def spell(text: str) -> str:
    """The one spelling of an answer; see the module. Never raises; linear in the text but for a small factor."""
    text = in_ascii(text) if not text.isascii() else text
    text = text.replace("\x00", "").replace("{,}", ",").replace("~", " ").strip()
    if marked := _MARKED.fullmatch(text):
        text = marked[2].strip()
    if "\\" in text:
        text = _commands(text)
    for old, new in _ASCII:
        if old in text:
            text = text.replace(old, new)
    text = _dollars(text)
    if "°" in text:
        text = _DEGREE.sub("°", text)
    return _formula_in_text(_worded(_outside(" ".join(text.split()))))


def _worded(text: str) -> str:
    """With signs for words that stand for them, and one form of ordinals, unions of intervals and bases."""
    if (about := _ABOUT.match(text)) is not None:
        text = text[about.end() :]
    if "inf" in text.lower():
        text = _INFINITY.sub(r"\\infty ", text).strip()
    if "th" in text or "^" in text:
        text = _ORDINAL.sub("", text)
    if "U" in text:
        text = _UNITED.sub(r" \\cup ", text)
    if ("_" in text or "base" in text) and (based := _IN_BASE.fullmatch(text)) and any(based.groups()[1:]):
        text = f"{based[1]}_{{{based[2] or based[3] or based[4]}}}"
    return text


def key(spelled: str) -> str:
    """What is left of a spelling without blanks and the braces around single characters; to compare, not to read."""
    text = re.sub(r"(?<!\d) | (?!\d)", "", spelled)  # "1 2" is not "12"
    return re.sub(r"([_^])\{([^{}\\])\}", r"\1\2", text).removeprefix("+")


def _commands(text: str) -> str:
    if r"\begin" not in text:
        text = _DOUBLED.sub(r"\\", text)
    else:
        text = _SYSTEM.sub(_system, _ROW_GAP.sub(r"\\\\", text))
    if r"\over" in text or r"\choose" in text:
        text = _INFIX.sub(lambda m: f"\\{_INFIX_NAMES[m[2]]}{{{m[1]}}}{{{m[3]}}}", f"{{{text}}}")
    text = _UPRIGHT.sub(r" \1 ", text)
    text = _THOUSANDS.sub(",", text.replace(r"\%", "%").replace(r"\$", "¤").replace(r"\#", "#").replace(r"\&", "&"))
    text = _LOOKS.sub(" ", text.replace(r"\!", ""))
    text = _SPACES.sub(" ", text if "color" not in text else _COLOUR.sub("", text))
    text = _BOLD.sub(
        r"{\1}" if r"\operatorname" not in text else r"\1", _UNDERLINED.sub(r"\1", _UNDERLINED.sub(r"\1", text))
    )
    text = _BOLD_LETTER.sub(r"{\1}", text)
    text = _TEXT_POWER.sub(r"\1\2", _TEXT_POWER.sub(r"\1\2", text))
    text = _TEXT.sub(lambda words: f"\\text{{{words[1]}}}" if _LETTER.search(words[1]) else f" {words[1]} ", text)
    text = _SCRIPT_TEXT.sub(lambda m: f"{m[1]}{{{_WORD_SUBSCRIPTS.get(m[2].strip(), m[2].strip())}}}", text)
    text = _NAMED.sub(lambda name: "\\" + _NAMES[name[1]], text)
    text = _PLAINLY.sub(lambda name: _PLAIN[name[1]], text)
    text = _FIRST_BARE.sub(r"\\frac{\1}", text)
    text = _SECOND_BARE.sub(r"\\frac\1{\2}", text)
    text = _ROOT_PARENS.sub(r"\\sqrt{\1}", text)
    return _ROOT.sub(lambda root: f"\\sqrt{root[1] or ''}{{{root[2]}}}", text)


def _system(found: re.Match[str]) -> str:
    """Equations below each other as a list, where each row names a value; anything else as it is."""
    rows = [row for row in re.split(r"\\\\", found[2]) if row.strip()]
    is_named = all(_NAMED_ROW.match(row) and row.count("&") < 2 for row in rows)
    return ", ".join(row.replace("&", " ").strip(" ,") for row in rows) if is_named else found[0]


def _dollars(text: str) -> str:
    """Without the signs around formulas; a single one in front of a number is money."""
    if "$" not in text:
        return text
    if text.count("$") == 1:
        text = re.sub(r"\$(?=\s*[\d.])", "¤", text)
    return text.replace("$", "")


def _outside(text: str) -> str:
    """Without full stops and commas around it, an empty left side, a box, and braces that hold all of it."""
    before = None
    while text != before:
        before = text
        text = text.strip(" \t\n\r,;:").removesuffix(r"\\").strip()
        text = _SO.sub("", text)
        if not text.endswith(".."):  # what goes on is no end of a sentence
            text = text.removesuffix(".").rstrip()
        for opening in (r"\boxed{", r"\fbox{", r"\mathrm{", "{"):
            if text.startswith(opening) and text.endswith("}") and _closes_last(text, len(opening)):
                text = text[len(opening) : -1].strip()
    return text


def _formula_in_text(text: str) -> str:
    r"""A formula that is all there is in ``\text{}``; words and numbers of things stay there."""
    if counted := _COUNTED.fullmatch(text):
        return f"{counted[1]} \\text{{{counted[2].strip()}}}"
    found = _WHOLE_TEXT.fullmatch(text)
    return found[1].strip() if found and re.search(r"[\d=+^]|^-", found[1]) and not _WORD.search(found[1]) else text


def _closes_last(text: str, start: int) -> bool:
    """Whether the brace that is open at ``start`` is closed by the last character and not before."""
    depth = 1
    position = start
    while position < len(text):
        character = text[position]
        if character == "\\":
            position += 2
            continue
        depth += (character == "{") - (character == "}")
        if depth == 0:
            return position == len(text) - 1
        position += 1
    return False
