"""The Boutiques descriptor is valid, says what the parser says, and makes commands it takes."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from deepmrseg_bids.cli.deepmrseg_bids import build_parser, parse
from tests.support import need
from tools.boutiques import EXCLUSIVE, descriptor

FILE = Path(__file__).parents[1] / "boutiques.json"


def bosh(*arguments: object, home: Path) -> str:
    need(str(Path(sys.executable).with_name("bosh")), package="boutiques (pip)")
    command = [Path(sys.executable).with_name("bosh"), *arguments]
    environment = {"HOME": str(home), "PATH": "/usr/bin:/bin"}
    ended = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


def test_the_file_is_what_the_parser_makes() -> None:
    assert json.loads(FILE.read_text(encoding="utf-8")) == descriptor(), (
        "stale: python tools/boutiques.py > boutiques.json"
    )


def test_it_is_valid(tmp_path: Path) -> None:
    assert "OK" in bosh("validate", FILE, home=tmp_path)


def test_it_has_every_flag() -> None:
    flags = {entry.get("command-line-flag") for entry in descriptor()["inputs"]}
    for action in build_parser()._actions:
        if action.option_strings and not {"--help", "--version"} & set(action.option_strings):
            assert len(flags & set(action.option_strings)) == 1, action.option_strings


def value(entry: dict[str, Any]) -> Any:
    """Something that an input takes."""
    if entry["type"] == "Flag":
        return True
    if entry["type"] == "Number":
        return 2
    single = {
        "tasks": "brain",
        "model": "brain=/x",
        "mem": "4G",
        "shard": "1/2",
        "output_spaces": "T1w",
    }.get(entry["id"], entry.get("value-choices", ["/x"])[0])
    return [single, single] if entry.get("list") else single


@pytest.mark.parametrize("side", [0, 1])
def test_a_command_with_everything_in_it_is_understood(side: int, tmp_path: Path) -> None:
    left_out = {pair[side] for pair in EXCLUSIVE.values()}
    inputs = [entry for entry in descriptor()["inputs"] if entry["id"] not in left_out]
    invocation = tmp_path / "invocation.json"
    invocation.write_text(json.dumps({entry["id"]: value(entry) for entry in inputs}))
    said = bosh("exec", "simulate", "-i", invocation, FILE, home=tmp_path)
    command = next(line for line in said.splitlines() if line.startswith("deepmrseg-bids"))
    args = parse(shlex.split(command)[1:])
    assert (args.bids_dir, args.out_dir, args.level) == (Path("/x"), Path("/x"), "participant")
    given = {entry.get("command-line-flag") for entry in inputs}
    for action in build_parser()._actions:
        if given & set(action.option_strings):
            assert action.dest in args, action.option_strings
    assert args.model == ["brain=/x", "brain=/x"]
