r"""Signs of Unicode as the LaTeX that means the same: ``½``, ``√``, ``≤``, ``x²``, ``α``, Chinese punctuation."""

import re
import unicodedata

_GREEK = (
    *("alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "kappa", "lambda", "mu", "nu", "xi", "rho", "sigma"),
    *("tau", "phi", "chi", "psi", "omega"),
)


def _greek(name: str) -> str:
    return unicodedata.lookup(f"GREEK SMALL LETTER {name.upper().replace('LAMBDA', 'LAMDA')}")


_SIGNS = {
    **dict.fromkeys("\u2212\u2013\u2014\u2012\uff0d", "-"),
    "×": r"\cdot ",
    "·": r"\cdot ",
    "⋅": r"\cdot ",
    "∗": r"\cdot ",
    "÷": "/",
    "∕": "/",
    "⁄": "/",
    "π": r"\pi ",
    "∞": r"\infty ",
    "√": r"\sqrt ",
    "±": r"\pm ",
    "∓": r"\mp ",
    "θ": r"\theta ",
    "∅": r"\emptyset ",
    "≤": r"\le ",
    "≥": r"\ge ",
    "≠": r"\ne ",
    "≈": r"\approx ",
    "∪": r"\cup ",
    "∩": r"\cap ",
    "∈": r"\in ",
    "½": r"\frac{1}{2}",
    "⅓": r"\frac{1}{3}",
    "⅔": r"\frac{2}{3}",
    "¼": r"\frac{1}{4}",
    "¾": r"\frac{3}{4}",
    "º": "°",
    "˚": "°",
    "ℝ": r"\mathbb{R}",
    "∛": r"\sqrt[3]",
    **{_greek(name): f"\\{name} " for name in _GREEK},
    **{letter: f"\\mathbb{{{plain}}}" for letter, plain in zip("ℤℕℚℂ", "ZNQC", strict=True)},
    "ⁿ": "^{n}",
    "ₙ": "_{n}",
    "⌊": r"\lfloor ",
    "⌋": r"\rfloor ",
    "⌈": r"\lceil ",
    "⌉": r"\rceil ",
    "∖": r"\setminus ",
    "∼": r"\sim ",
    "∣": "|",
    "⋯": "...",
    "′": "'",
    "、": ",",
    "∴": "",
    "✓": "",
    "✔": "",
    "✅": "",
    "∠": r"\angle ",
    "△": r"\triangle ",
    "。": ".",
    "\u2018": "'",
    "\u2019": "'",
    "\u201c": '"',
    "\u201d": '"',
    "¤": " ",
    "\u00a0": " ",
    "\u2009": " ",
    "\u202f": " ",
    "\u200b": "",
    "\ufeff": "",
}
_RAISED = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁺", "0123456789-+")
_LOWERED = str.maketrans("₀₁₂₃₄₅₆₇₈₉", "0123456789")
_FOREIGN = re.compile("[" + re.escape("".join(_SIGNS)) + "]")


def in_ascii(text: str) -> str:
    """With commands for the signs of Unicode that have one; other letters as NFKC writes them. Never raises."""
    text = _FOREIGN.sub(lambda sign: _SIGNS[sign.group()], text)
    text = re.sub("[⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁺]+", lambda run: f"^{{{run.group().translate(_RAISED)}}}", text)
    text = re.sub("[₀₁₂₃₄₅₆₇₈₉]+", lambda run: f"_{{{run.group().translate(_LOWERED)}}}", text)
    return unicodedata.normalize("NFKC", text)
