"""Parts of HTML reports: one page that contains its tables and figures and loads no other files."""

import base64
from collections.abc import Sequence
from html import escape
from pathlib import Path
from string import Template

_PAGE = Template(
    """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>$title</title>
<style>
body { font-family: sans-serif; max-width: 75rem; margin: 2rem auto; padding: 0 1rem; color: #222; }
table { border-collapse: collapse; margin: 0.5rem 0 1rem; font-size: 0.9rem; }
th, td { padding: 0.25rem 0.7rem; border-bottom: 1px solid #ddd; text-align: right; }
th:first-child, td:first-child { text-align: left; }
figure { display: inline-block; margin: 0.5rem; vertical-align: top; }
figure img { max-width: 100%; }
figcaption, .note { color: #666; font-size: 0.85rem; }
.scale { font-weight: bold; }
</style>
</head>
<body>
<h1>$title</h1>
$body
</body>
</html>
"""
)


def page(title: str, parts: Sequence[str]) -> str:
    """Return a whole page.

    Args:
        title: escaped here.
        parts: HTML, in order.
    """
    return _PAGE.substitute(title=escape(title), body="\n".join(parts))


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table; texts are escaped."""
    head = "".join(f"<th>{escape(cell)}</th>" for cell in header)
    body = "\n".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody>\n</table>"


def figure(path: Path, text: str | None = None) -> str:
    """Return a picture inside the page, with a text below.

    Args:
        path: PNG file.
        text: what it shows; default the name of the file. Escaped here.

    Raises:
        OSError: it cannot be read.
    """
    data = base64.b64encode(path.read_bytes()).decode("ascii")
    name = escape(path.stem.replace("_", " "))
    image = f'<img alt="{name}" src="data:image/png;base64,{data}">'
    return f"<figure>{image}<figcaption>{escape(text or path.stem.replace('_', ' '))}</figcaption></figure>"
