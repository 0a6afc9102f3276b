"""What --precision auto means on a machine, and that nothing is decided where it need not be."""

import subprocess
import sys

import pytest
import torch

from deepmrseg_bids.errors import UsageError
from deepmrseg_bids.inference import precision
from deepmrseg_bids.inference.precision import decide_precision
from deepmrseg_bids.inference.predictor import Predictor, resolve_precision


@pytest.mark.parametrize("device", ["auto", "cpu"])
def test_auto_is_bfloat16_where_the_cpu_computes_with_it(monkeypatch, fastest, device):
    monkeypatch.setattr(precision, "may_have_gpu", lambda: False)
    assert decide_precision("auto", device) == fastest


@pytest.mark.parametrize("able", [True, False])
def test_auto_on_a_gpu_asks_the_gpu_and_not_the_cpu(monkeypatch, fastest, able):
    monkeypatch.setattr(precision, "may_have_gpu", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: able)
    expected = "bfloat16" if able else "float32"
    assert decide_precision("auto", "auto") == decide_precision("auto", "cuda:0") == expected
    assert resolve_precision("auto", torch.device("cuda")) is getattr(torch, expected)


@pytest.mark.parametrize("asked", ["float32", "bfloat16"])
@pytest.mark.parametrize("device", ["auto", "cpu", "cuda:7"])
def test_what_was_asked_for_is_taken_without_a_look_at_the_machine(fastest, asked, device):
    assert decide_precision(asked, device) == asked


def test_auto_on_a_gpu_that_is_not_there_is_an_error(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UsageError, match="no such GPU"):
        decide_precision("auto", "cuda")


def test_a_predictor_and_a_run_mean_the_same_by_auto(fastest):
    assert resolve_precision("auto", torch.device("cpu")) is getattr(torch, fastest)
    assert resolve_precision("float32", torch.device("cpu")) is torch.float32


def test_a_predictor_computes_in_the_precision_that_auto_means(tiny_model, fastest):
    from deepmrseg_bids.inference.bundle import ModelBundle

    bundle = ModelBundle.open(tiny_model)
    image = torch.rand(16, 16, 16, generator=torch.Generator().manual_seed(0)).numpy() * 5
    auto, asked = (Predictor(bundle, precision=name)(image) for name in ("auto", fastest))
    assert (auto == asked).all()


def test_torch_is_not_loaded_where_there_is_no_gpu():
    program = (
        "import sys; from deepmrseg_bids.inference import precision;"
        "precision.may_have_gpu = lambda: False;"
        "precision.decide_precision('auto', 'auto'); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
