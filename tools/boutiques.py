"""Write the Boutiques descriptor of ``deepmrseg-bids`` from the command's own parser.

    python tools/boutiques.py > boutiques.json

What the parser knows (flags, choices, how many values) is taken from it; what it does not know
(that a value is a file, a number's bounds) stands here. The tests compare the file with what this
writes, so the two cannot drift apart.
"""

from __future__ import annotations

import argparse
import json
from typing import Any

from deepmrseg_bids import __version__
from deepmrseg_bids.cli.deepmrseg_bids import build_parser

# what an option's own `type` function stands for in Boutiques; others are strings
TYPES: dict[str, dict[str, Any]] = {
    "_path": {"type": "File"},
    "positive": {"type": "Number", "integer": True, "minimum": 1},
}
EXIT_CODES = {
    2: "wrong usage, or the run cannot start",
    3: "some sessions failed or were skipped, the others are done",
    4: "nothing could be processed",
    130: "interrupted",
}
# of each pair a run takes one
EXCLUSIVE = {
    "pages": ("reports_only", "no_reports"),
    "loudness": ("verbose", "quiet"),
}


def flag_of(action: argparse.Action) -> str | None:
    """The spelling to use: the first long one; None for a positional."""
    long = [option for option in action.option_strings if option.startswith("--")]
    return next(iter(long or action.option_strings), None)


def identifier(action: argparse.Action) -> str:
    """A Boutiques id: the flag without its dashes, with underscores."""
    return (flag_of(action) or action.dest).strip("-").replace("-", "_")


def input_of(action: argparse.Action) -> dict[str, Any]:
    """One input of the descriptor."""
    flag = flag_of(action)
    name = identifier(action)
    entry: dict[str, Any] = {
        "id": name,
        "name": name.replace("_", " "),
        "description": (action.help or "").replace("%%", "%"),
        "value-key": f"[{name.upper()}]",
        "optional": flag is not None,
    }
    if flag is not None:
        entry["command-line-flag"] = flag
    if action.nargs == 0:
        return entry | {"type": "Flag"}
    entry |= TYPES.get(getattr(action.type, "__name__", ""), {"type": "String"})
    if action.choices is not None:
        entry["value-choices"] = list(action.choices)
    if action.nargs == "+":
        entry |= {"list": True, "min-list-entries": 1}
    elif type(action).__name__ == "_AppendAction":
        # given once for each value
        entry |= {"list": True, "min-list-entries": 1, "list-separator": f" {flag} "}
    return entry


def descriptor() -> dict[str, Any]:
    """The whole descriptor, for the parser as it is now."""
    actions = [
        action
        for action in build_parser()._actions
        if not isinstance(action, argparse._HelpAction | argparse._VersionAction)  # end at once
    ]
    inputs = [input_of(action) for action in actions]
    # an option that takes several values would swallow the places behind it
    inputs.sort(key=lambda entry: bool(entry["optional"]))
    for entry in inputs:
        if entry["id"] == "out_dir":
            entry["type"] = "String"  # it need not be there yet
    return {
        "name": "deepmrseg-bids",
        "description": "A BIDS-App that segments raw brain MRI with DeepMRSeg networks. "
        "For research, not for diagnosis.",
        "author": "The deepmrseg-bids developers",
        "tool-version": __version__,
        "schema-version": "0.5",
        "command-line": "deepmrseg-bids " + " ".join(entry["value-key"] for entry in inputs),
        "container-image": {"type": "docker", "image": f"deepmrseg-bids:{__version__}"},
        "tags": {"domain": ["neuroinformatics"], "modality": ["mri"], "standard": ["bids"]},
        "suggested-resources": {"cpu-cores": 1, "ram": 2, "walltime-estimate": 600},
        "inputs": inputs,
        "groups": [
            {
                "id": name,
                "name": name,
                "members": list(members),
                "mutually-exclusive": True,
            }
            for name, members in EXCLUSIVE.items()
        ],
        "output-files": [
            {
                "id": "derivatives",
                "name": "derivatives",
                "description": "a BIDS derivatives data set: label maps, volumes, pages, logs",
                "path-template": "[OUT_DIR]",
            }
        ],
        "error-codes": [{"code": code, "description": text} for code, text in EXIT_CODES.items()],
    }


if __name__ == "__main__":
    print(json.dumps(descriptor(), indent=2))
