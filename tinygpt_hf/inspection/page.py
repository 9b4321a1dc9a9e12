"""Render self-contained HTML pages that load nothing and escape all text.

html = render_template("inspect.html.jinja", facts=inspection.facts())     # of `tinygpt inspect --html`
html = render_template("report.html.jinja", folder, run=run)               # any template that extends base.html.jinja

A content security policy in the page blocks all requests and all scripts except the template's own, allowed by its hash.
"""

import base64
import hashlib
import json
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

HERE = Path(__file__).parent


def render_template(template: str, folder: Path = HERE, **values) -> str:
    """Render a template of `folder` with autoescaping."""
    loader = FileSystemLoader([folder, HERE])
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters.update(in_script=in_script, digest=digest)
    return environment.get_template(template).render(values) + "\n"


def in_script(value) -> Markup:
    """Write a value as JSON for a <script> element; `<`, `>` and `&` are escaped, so that it cannot end the element."""
    text = json.dumps(value, separators=(",", ":"), allow_nan=False)
    return Markup(text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"))


def digest(script: str) -> str:
    """Return a script's hash in the form of a content security policy."""
    return f"sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}"
