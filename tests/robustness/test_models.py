"""Models that are not what they should be, and GPUs that are not there."""

from __future__ import annotations

import json
import pickle
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tests.robustness.test_disks import refused

Say = Callable[[str], None]


def change_a_byte(model: Path) -> None:
    weights = model / "weights.safetensors"
    raw = bytearray(weights.read_bytes())
    raw[-1] ^= 1
    weights.write_bytes(bytes(raw))


def truncate(model: Path) -> None:
    weights = model / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])


def from_the_future(model: Path) -> None:
    tree = json.loads((model / "bundle.json").read_text())
    (model / "bundle.json").write_text(json.dumps({**tree, "format": 99}))


class Evil:
    """Unpickling it leaves a trace."""

    def __reduce__(self) -> tuple[object, tuple[str, str]]:
        return open, ("/tmp/deepmrseg-was-unpickled", "w")


def pickled(model: Path) -> None:
    (model / "weights.safetensors").unlink()
    (model / "weights.pt").write_bytes(pickle.dumps(Evil()))


@pytest.mark.parametrize(
    ("spoil", "text"),
    [
        pytest.param(
            change_a_byte, "expected SHA-256",
            marks=pytest.mark.robustness("model file changed", tried="one bit changed"),
        ),
        pytest.param(
            truncate, "expected SHA-256",
            marks=pytest.mark.robustness("model file truncated", tried="weights truncated by "
                                                                       "100 bytes"),
        ),
        pytest.param(
            from_the_future, "format 99",
            marks=pytest.mark.robustness("model of a newer format", tried="format 99"),
        ),
        pytest.param(
            pickled, "only that format is loaded",
            marks=pytest.mark.robustness(
                "model is a pickle", tried="weights.pt, a pickle that runs code, as the weights"
            ),
        ),
    ],
)  # fmt: skip
def test_a_model_that_is_not_what_it_was_is_refused(
    tiny_data: Path,
    tiny_model: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    came_out: Say,
    spoil: Callable[[Path], None],
    text: str,
) -> None:
    model = tmp_path / "model"
    shutil.copytree(tiny_model, model)
    spoil(model)
    words = [tiny_data, tmp_path / "out", "participant", "--tasks", "brain"]
    said = refused([*words, "--model", f"brain={model}"], capsys)
    assert text in said and not (tmp_path / "out").exists()
    assert not Path("/tmp/deepmrseg-was-unpickled").exists()
    said = re.sub("[0-9a-f]{64}", "...", said)
    came_out(f"exit code 2, nothing written: {said}")


@pytest.mark.robustness(
    "GPU requested but not available", tried="`--device cuda` on a machine without a GPU"
)
def test_a_gpu_that_is_not_there_is_an_error(
    tiny_data: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    came_out: Say,
) -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    words = [tiny_data, tmp_path / "out", "participant", "--device", "cuda"]
    said = refused(words, capsys)
    assert not (tmp_path / "out").exists()
    came_out(f"exit code 2, nothing written: {said}")
