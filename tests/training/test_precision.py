"""Mixed precision: the launcher's choice is used for `auto`, and unsupported formats are errors."""

import pytest
import torch

from tinygpt_hf.errors import UsageError
from tinygpt_hf.training import precision


def test_auto_precision_is_that_of_the_launcher(monkeypatch):
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "no")
    assert precision.choose_precision("auto", "cpu") == "no"
    assert precision.choose_precision("bf16", "cpu") == "bf16"  # a setting overrides the launcher
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    assert precision.choose_device("auto") == "cpu"


@pytest.mark.parametrize("fast,chosen", [(True, "bf16"), (False, "no")])
def test_bf16_is_chosen_if_the_cpu_supports_it(monkeypatch, fast, chosen):
    monkeypatch.delenv("ACCELERATE_MIXED_PRECISION", raising=False)
    monkeypatch.setattr(precision, "_cpu_has_bf16", lambda: fast)
    assert precision.choose_precision("auto", "cpu") == chosen
    assert precision.choose_precision("auto", "mps") == "no"


def test_unsupported_precision_is_an_error(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UsageError, match="a device of this machine: cpu"):
        precision.choose_device("cuda")
    for device in ("cpu", "mps"):
        with pytest.raises(UsageError, match="a CUDA GPU for fp16"):
            precision.choose_precision("fp16", device)


def test_eager_attention_is_chosen_for_bf16_on_a_cpu():
    assert precision.attention_for("cpu", "bf16") == "eager"
    assert {precision.attention_for(*where) for where in (("cpu", "no"), ("cuda", "bf16"))} == {"sdpa"}
