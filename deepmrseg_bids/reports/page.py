"""Pages: single files that open without a network, from templates, style and scripts.

A page's content security policy names the hash of every script that this package puts into it,
and forbids all others and every address but the page itself.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from deepmrseg_bids import __version__

__all__ = ["packed", "render_page"]

_ASSETS = files("deepmrseg_bids.reports") / "assets"


@dataclass(frozen=True)
class _Library:
    """A script that lies in the page compressed, until ``page.library(name)`` starts it."""

    name: str
    data: str
    digest: str


def render_page(
    template: str,
    *,
    scripts: Sequence[str] = (),
    libraries: Sequence[str] = (),
    beside: bool = False,
    **values: Any,
) -> bytes:
    """Fill a template that extends ``base.html.j2``; the same values give the same bytes.

    Args:
        scripts: of the folder ``assets``, to run when the page has been read, after ``page.js``.
        libraries: compressed scripts, ``assets/<name>.js.gz``, that a script may start with
            ``page.library(name)``: they cost nothing before.
        beside: the page shows pictures that lie beside it.
        values: for the template; ``version`` is this package's unless given.
    """
    texts = [_script(name) for name in ("page.js", *scripts)] if scripts or libraries else []
    kept = [_library(name) for name in libraries]
    digests = [_digest(text.encode()) for text in texts] + [one.digest for one in kept]
    values = {"version": __version__} | values
    page = (
        _environment()
        .get_template(template)
        .render(
            policy=_policy(digests, beside=beside),
            scripts=[Markup(text) for text in texts],
            libraries=kept,
            **values,
        )
    )
    # a file name need not be valid text: what cannot be written becomes a question mark
    return page.encode("utf-8", "replace")


def packed(data: bytes) -> str:
    """Gzip as base64 without a time stamp, as ``page.bytes`` of ``page.js`` reads it."""
    return base64.b64encode(gzip.compress(data, 6, mtime=0)).decode("ascii")


def _policy(digests: Sequence[str], *, beside: bool) -> str:
    """The page itself, its own pictures and scripts, and nothing else."""
    pictures = " 'self' file:" if beside else ""  # to some browsers no file is 'self'
    own = " ".join(f"'sha256-{digest}'" for digest in digests) or "'none'"
    return (
        f"default-src 'none'; img-src data: blob:{pictures}; style-src 'unsafe-inline'; "
        f"script-src {own}; connect-src data: blob:; form-action 'none'; base-uri 'none'"
    )


def _digest(data: bytes) -> str:
    return base64.b64encode(hashlib.sha256(data).digest()).decode("ascii")


@cache
def _script(name: str) -> str:
    return (_ASSETS / name).read_text(encoding="utf-8")


@cache
def _library(name: str) -> _Library:
    data = (_ASSETS / f"{name}.js.gz").read_bytes()
    return _Library(
        name, base64.b64encode(data).decode("ascii"), _digest(gzip.decompress(data))
    )  # fmt: skip


@cache
def _environment() -> Environment:
    return Environment(
        loader=PackageLoader("deepmrseg_bids.reports"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
