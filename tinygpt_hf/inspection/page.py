"""Write pages that are one file: they load nothing, run only our script, and show everything else as text.

html = page(seen.facts())                          # of `tinygpt inspect --html`
html = rendered("report.html.jinja", folder, run=run)   # any template that extends base.html.jinja

A policy in the page's head forbids the browser any address and any script but the one in the template, which is known by its hash.
"""

import base64
import hashlib
import json
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

HERE = Path(__file__).parent


def page(facts: dict) -> str:
    """Write what was seen of a text as a page."""
    return rendered("inspect.html.jinja", model=facts["model"], summary=facts["summary"], facts=facts)


def rendered(template: str, folder: Path = HERE, **values) -> str:
    """Fill in a template of `folder`; what it prints is escaped."""
    loader = FileSystemLoader([folder, HERE])
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters.update(in_script=in_script, digest=digest)
    return environment.get_template(template).render(values) + "\n"


def in_script(value) -> Markup:
    """Write a value as JSON inside <script>: nothing in it ends the element."""
    text = json.dumps(value, separators=(",", ":"), allow_nan=False)  # ASCII
    return Markup(text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"))


def digest(script: str) -> str:
    """Compute the hash by which a content security policy knows a script."""
    return f"sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}"
