"""The self-test passes here, and each injected fault fails its row and no other."""

import json

import pytest
import torch
from transformers import PreTrainedTokenizerFast
from transformers.cache_utils import DynamicLayer

from tinygpt_hf import TinyGPTForCausalLM, selftest
from tinygpt_hf.cli import main
from tinygpt_hf.inference.engine import Norm
from tinygpt_hf.model import modeling_tinygpt
from tinygpt_hf.training import checkpoint, step

TRAINED = ("accumulation", "resume")


@pytest.fixture(scope="module")
def bench(tmp_path_factory) -> selftest.Bench:
    made = selftest.Bench(tmp_path_factory.mktemp("bench"))
    assert made.logits.isfinite().all()  # trained and loaded before anything is planted
    return made


def micro_batches_weigh_the_same(loss=step.micro_batch_loss):
    def planted(forward, batch, tokens, device):
        return loss(forward, batch, int((batch[1] != -100).sum()), device)

    return step, "micro_batch_loss", planted


def the_optimizer_forgets():
    return checkpoint, "load_optimizer", lambda path, optimizer: None


def the_cache_forgets(update=DynamicLayer.update):
    def planted(self, keys, values, *rest, **options):
        return update(self, keys, 0.0 * values if keys.shape[-2] == 1 else values, *rest, **options)

    return DynamicLayer, "update", planted


def the_engine_norms_otherwise(call=Norm.__call__):
    return Norm, "__call__", lambda self, x: call(self, x) * 1.001


def weights_are_rounded_when_saved(save=TinyGPTForCausalLM.save_pretrained):
    def planted(self, folder, **options):
        rounded = {name: value.half().float() for name, value in self.state_dict().items()}
        return save(self, folder, state_dict=rounded, **options)

    return TinyGPTForCausalLM, "save_pretrained", planted


def eager_attention_scales_otherwise(attend=modeling_tinygpt.eager_attention_forward):
    def planted(module, query, key, value, mask, scaling, *rest, **options):
        return attend(module, query, key, value, mask, 1.01 * scaling, *rest, **options)

    return modeling_tinygpt, "eager_attention_forward", planted


def bfloat16_norms_lose_bits(forward=modeling_tinygpt.TinyGPTRMSNorm.forward):
    def planted(self, x):
        found = forward(self, x)
        return found if found.dtype == torch.float else found.to(torch.float8_e4m3fn).to(found.dtype)

    return modeling_tinygpt.TinyGPTRMSNorm, "forward", planted


def the_decoder_strips(decode=PreTrainedTokenizerFast.decode):
    return PreTrainedTokenizerFast, "decode", lambda *args, **options: decode(*args, **options).strip()


FAULTS = {
    "accumulation": micro_batches_weigh_the_same,
    "resume": the_optimizer_forgets,
    "cache": the_cache_forgets,
    "engine": the_engine_norms_otherwise,
    "saving": weights_are_rounded_when_saved,
    "attention": eager_attention_scales_otherwise,
    "half_precision": bfloat16_norms_lose_bits,
    "tokenizers": the_decoder_strips,
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_planted_fault_fails_its_row_and_no_other(bench, monkeypatch, name, tmp_path):
    bench.folder = tmp_path
    monkeypatch.setattr(*FAULTS[name]())
    # training takes a second a row; of the rows that train and the others, neither meets what is planted in the other
    checks = [check for check in selftest.ROWS.values() if (check.__name__ in TRAINED) == (name in TRAINED)]
    checks = [check for check in checks if check is not selftest.processes]
    assert [check.__name__ for check in checks if not selftest.check("a row", check, bench).holds] == [name]


def test_everything_holds_here_and_the_table_goes_into_a_file(tmp_path, capsys):
    assert main(["selftest", "--output_file", str(tmp_path / "table.json")]) == 0
    said = capsys.readouterr().out.splitlines()
    table = json.loads((tmp_path / "table.json").read_text())
    assert table["holds"] and len(table["rows"]) == 9 and said[-2] == "9 of 9 rows hold"
    assert [line.split("  ")[0] for line in said[1:10]] == [row["row"] for row in table["rows"]]
    assert table["versions"]["torch"] in said[-1]


def test_a_row_that_fails_or_breaks_off_is_named_and_the_status_is_1(monkeypatch, capsys):
    def breaks(bench):
        raise RuntimeError("no such\nmachine")

    def differs(bench):
        return float("nan"), 1.0

    rows = {"a row": breaks, "another": differs}
    monkeypatch.setattr(selftest, "results", lambda: (selftest.check(*row, None) for row in rows.items()))
    assert main(["selftest"]) == 1
    said = capsys.readouterr().out.splitlines()
    assert said[1].split() == ["a", "row", "FAILS", "RuntimeError:", "no", "such"]
    assert said[2].split()[:2] == ["another", "FAILS"] and said[3] == "0 of 2 rows hold"
