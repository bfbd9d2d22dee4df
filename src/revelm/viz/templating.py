"""Filling the page templates: autoescaped HTML, and JSON that can sit inside a script element.

Inside ``<script>`` a browser looks for ``</script``, ``<!--`` and ``<script`` before any JSON parser runs, so no
``<`` may appear there; U+2028 and U+2029 end lines in older JavaScript. Everything beyond ASCII is escaped.
"""

import functools
import json
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

_FORBIDDEN = {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026"}


def script_json(data: Any) -> Markup:
    """``data`` as JSON that no HTML parser can misread. Raises ValueError on NaN or infinity."""
    text = json.dumps(data, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    for character, escape in _FORBIDDEN.items():
        text = text.replace(character, escape)
    return Markup(text)  # noqa: S704 - made safe just above


def fill(template: str, **values: Any) -> str:
    """The template of that file name, filled. Plain strings are escaped; Markup is taken as it is."""
    return _environment().get_template(template).render(**values)


@functools.cache
def _environment() -> Environment:
    return Environment(
        loader=PackageLoader("revelm.viz", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
