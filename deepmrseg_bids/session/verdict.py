"""One word about a session, and the sentence that explains it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from deepmrseg_bids.wording import counted

__all__ = ["LEVELS", "Verdict", "verdict"]

LEVELS = ("problem", "check", "ok")
"""The worst first: not usable as it is, to be looked at, nothing known against it."""


@dataclass(frozen=True)
class Verdict:
    """What is to be done with a session.

    Attributes:
        level: of ``LEVELS``.
        reason: one sentence.
    """

    level: str
    reason: str


def verdict(
    findings: Iterable[tuple[str, str]],
    *,
    failed: Iterable[tuple[str, str]] = (),
    skipped: Iterable[tuple[str, str]] = (),
    outlier: str | None = None,
    excluded: Iterable[str] = (),
) -> Verdict:
    """Judge a session.

    Args:
        findings: severity and text of each.
        failed: the title of each task that failed, and why.
        skipped: the same of a session without any result: nothing known against it is not good.
        outlier: why the group level finds it unusual; empty if it does not, None if not known.
        excluded: the tasks whose result raters have rated fail.

    >>> verdict([("info", "oblique slices")]).level
    'ok'
    >>> verdict([("warning", "thick slices")], outlier="volume of Brain, robust z +4.0")
    Verdict(level='check', reason='Thick slices; outlier: volume of Brain, robust z +4.0.')
    """
    known = list(dict.fromkeys(findings))
    bad = [f"{', '.join(tasks)} rated fail" for tasks in [list(excluded)] if tasks]
    bad += _alike(failed, "failed")
    bad += [text for severity, text in known if severity == "error"]
    doubtful = _alike(skipped, "skipped")
    doubtful += [text for severity, text in known if severity == "warning"]
    doubtful += [f"outlier: {outlier}"] if outlier else []
    if not bad and not doubtful:
        more = "" if outlier is None else ", and no outlier"
        return Verdict("ok", f"No errors or warnings{more}.")
    return Verdict("problem" if bad else "check", _sentence([*bad, *doubtful]))


_SHOWN = 3


def _alike(tasks: Iterable[tuple[str, str]], what: str) -> list[str]:
    """What became of tasks, those with one reason together."""
    alike: dict[str, list[str]] = {}
    for title, reason in tasks:
        alike.setdefault(reason, []).append(title)
    return [f"{', '.join(titles)} {what}" + (f": {reason}" if reason else "")
            for reason, titles in alike.items()]  # fmt: skip


def _sentence(reasons: list[str]) -> str:
    text = "; ".join(reasons[:_SHOWN])
    if len(reasons) > _SHOWN:
        text += f"; and {counted(len(reasons) - _SHOWN, 'more reason', 'more reasons')}"
    return f"{text[:1].upper()}{text[1:]}" + ("" if text.endswith(".") else ".")
