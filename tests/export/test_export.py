"""Test exports to stock folders: they do not need tinygpt_hf, the proof finds errors, and failures leave no files."""

import dataclasses
import errno
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from tinygpt_hf import storage
from tinygpt_hf.cli import main
from tinygpt_hf.errors import RunError, UsageError
from tinygpt_hf.export import export as exporting
from tinygpt_hf.export import reference
from tinygpt_hf.export import stock as stock_format
from tinygpt_hf.export.export import check_request, export, report_lines
from tinygpt_hf.model.conversion import DIALECTS, STOCK_CLASSES
from tinygpt_hf.model.loading import load_model

SHAPES = {
    "qwen3": {
        "num_key_value_heads": 2,
        "head_dim": 24,
        "rope_parameters": {"rope_theta": 300.0, "rope_type": "default"},
    },
    "llama": {
        "tie_word_embeddings": False,
        "rope_parameters": {"rope_theta": 7e4, "rope_type": "linear", "factor": 2.0},
    },
    "gpt2": {"rms_norm_eps": 1e-4, "hidden_act": "gelu"},
}
DTYPES = {"qwen3": torch.float32, "llama": torch.bfloat16, "gpt2": torch.float32}


@pytest.fixture(scope="session")
def save_model(make_model):
    """Return a function that saves a model of one kind, with its tokenizer, in a new folder."""

    def save(folder: Path, tokenizer, kind: str, **changes) -> Path:
        shape = {"hidden_size": 48, "hidden_dropout": 0.3, "vocab_size": len(tokenizer) + 5}
        model = make_model(tokenizer, **DIALECTS[kind] | shape | SHAPES[kind] | changes).to(DTYPES[kind])
        model.generation_config.eos_token_id = [tokenizer.eos_token_id, 3]
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        return folder

    return save


@pytest.fixture(scope="module", params=STOCK_CLASSES)
def exported(request, save_model, tiny_tokenizer, tmp_path_factory):
    """Return (source folder, exported folder, kind, report)."""
    source = save_model(tmp_path_factory.mktemp(request.param) / "model", tiny_tokenizer, request.param)
    target = check_request(str(source), request.param, None)
    model, tokenizer = load_model(str(source), "cpu", "saved")
    return source, target, request.param, export(model, tokenizer, str(source), request.param, target)


@pytest.fixture
def source(save_model, tiny_tokenizer, tmp_path) -> Path:
    return save_model(tmp_path / "model", tiny_tokenizer, "qwen3")


def tree(folder: Path) -> dict[str, str]:
    return {str(p.relative_to(folder)): storage.file_hash(p) for p in sorted(folder.rglob("*")) if p.is_file()}


def one_line(capsys) -> str:
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("error: ") and err.count("\n") == 1, err
    return err


def test_the_proof_compared_everything(exported):
    source, target, kind, report = exported
    assert target == source / "exports" / kind and report.output_dir == str(target)
    assert report.what == STOCK_CLASSES[kind]
    assert 0 < report.logit_difference <= reference.TOLERANCE * report.rounding < 1e-3
    assert (report.prompts, report.greedy_tokens, report.texts) == (4, 64, len(reference.TEXTS))
    lines = report_lines(report, kind)
    assert f"largest error {report.logit_difference:.1e}" in lines[1] and "64 greedy tokens" in lines[1]
    assert lines[-1] == f"next: transformers serve {target}"
    report_elsewhere = dataclasses.replace(report, output_dir="my runs/x")
    assert report_lines(report_elsewhere, kind)[-1] == "next: transformers serve 'my runs/x'"


def test_the_folder_is_a_stock_model_and_nothing_else(exported):
    source, target, kind, _ = exported
    assert {path.name for path in target.iterdir()} == {
        "config.json", "generation_config.json", "model.safetensors",
        "tokenizer.json", "tokenizer_config.json", "chat_template.jinja",
    }  # fmt: skip
    assert all("tinygpt" not in path.read_text().lower() for path in target.glob("*.json"))
    config = json.loads((target / "config.json").read_text())
    assert config["architectures"] == [STOCK_CLASSES[kind]] and "auto_map" not in config
    assert json.loads((target / "generation_config.json").read_text())["eos_token_id"] == [0, 3]
    assert os.stat(target / "model.safetensors").st_mode & 0o777 == os.stat(target / "config.json").st_mode & 0o777


def test_it_computes_the_same_here_too_in_the_dtype_it_was_saved_in(exported):
    source, target, kind, _ = exported
    weights = load_file(target / "model.safetensors")
    assert {tensor.dtype for tensor in weights.values()} == {DTYPES[kind]}
    ours, stock = (AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32) for folder in (source, target))
    assert (type(ours).__name__, type(stock).__name__) == ("TinyGPTForCausalLM", STOCK_CLASSES[kind])
    ids = torch.randint(0, ours.config.vocab_size, (2, 40), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        assert (ours(ids).logits - stock(ids).logits).abs().max() < 1e-5
    one, two = AutoTokenizer.from_pretrained(source), AutoTokenizer.from_pretrained(target)
    assert one.all_special_tokens == two.all_special_tokens and one.chat_template == two.chat_template
    assert one.padding_side == two.padding_side == "left" and two.model_max_length == one.model_max_length


def test_older_readers_find_the_names_they_know(exported):
    _, target, kind, _ = exported
    config = json.loads((target / "config.json").read_text())
    if kind == "gpt2":
        assert config["n_ctx"] == config["n_positions"] == 96
    else:
        assert config["rope_theta"] == SHAPES[kind]["rope_parameters"]["rope_theta"]
        assert ("rope_scaling" in config) == (kind == "llama")
    tokenizer = json.loads((target / "tokenizer_config.json").read_text())
    assert tokenizer["tokenizer_class"] == "PreTrainedTokenizerFast"
    assert tokenizer["additional_special_tokens"] == ["<|im_start|>", "<|im_end|>"]
    assert not {"extra_special_tokens", "is_local", "local_files_only"} & set(tokenizer)


# What the proof stands on.


def test_the_reference_is_what_a_plain_loop_computes(source, tmp_path):
    model, tokenizer = load_model(str(source), "cpu", "saved")
    model.generation_config.repetition_penalty = 5.0  # the model's own generation settings are no part of it
    (tmp_path / "reference").mkdir()
    reference.write_reference(model, tokenizer, tmp_path / "reference")
    values = json.loads((tmp_path / "reference" / "reference.json").read_text())
    ids, greedy = list(values["prompts"][0]), []
    with torch.no_grad():
        for _ in range(64):
            greedy.append(model(torch.tensor([ids + greedy]), use_cache=False).logits[0, -1].argmax().item())
        assert values["greedy"][0] == greedy
        tensors = load_file(tmp_path / "reference" / "reference.safetensors")
        assert sorted(tensors["ids.3"].shape) == [1, 96] and tensors["logits.3"].shape[1] == reference.KEPT
        difference = (model(tensors["ids.0"], use_cache=False).logits[:, -16:] - tensors["logits.0"]).abs().max().item()
        exact = model.double()(torch.tensor([ids + greedy])).logits[0, len(ids) - 1 : -1].topk(2).values
    assert values["token_ids"] == [tokenizer(text)["input_ids"] for text in reference.TEXTS]
    assert values["chat"].startswith("<|im_start|>user\nHello!") and model.generation_config.repetition_penalty == 5.0
    assert 0 < difference <= values["rounding"] < 1e-5
    assert values["margins"][0] == pytest.approx((exact[:, 0] - exact[:, 1]).tolist())
    (tmp_path / "again").mkdir()
    reference.write_reference(model.float().train(), tokenizer, tmp_path / "again")
    assert model.training and tree(tmp_path / "again") == tree(tmp_path / "reference")


def test_a_short_context_is_not_left(make_model, tiny_tokenizer, tmp_path):
    model = make_model(tiny_tokenizer, **DIALECTS["gpt2"], max_position_embeddings=6)
    reference.write_reference(model, tiny_tokenizer, tmp_path)
    values = json.loads((tmp_path / "reference.json").read_text())
    assert [len(ids) for ids in values["prompts"]] == [3, 3, 1, 3] and {len(g) for g in values["greedy"]} == {3}


def test_a_model_without_numbers_is_no_reference(make_model, tiny_tokenizer, tmp_path):
    model = make_model(tiny_tokenizer)
    model.model.norm.weight.data.fill_(float("nan"))
    with pytest.raises(RunError, match="not finite"):
        export(model, tiny_tokenizer, str(tmp_path), "qwen3", tmp_path / "exports" / "x")
    assert not (tmp_path / "exports").exists()


@pytest.mark.parametrize(("to", "absent"), [("qwen3", "tinygpt_hf"), ("onnx", "transformers")])
def test_the_proof_has_no_tinygpt_and_for_onnx_no_torch(to, absent, source, tmp_path):
    code = (
        "import runpy, sys\nsys.argv = sys.argv[1:]\n"
        "try: runpy.run_path(sys.argv[0], run_name='__main__')\n"
        f"finally: print('barred' if sys.modules.get({absent!r}, 1) is None else 'there')"
    )
    words = [sys.executable, "-c", code, *exporting.proof_command(to, source, tmp_path)]
    env = {**os.environ, "PYTHONPATH": str(Path(exporting.__file__).parents[2])}
    done = subprocess.run(words, capture_output=True, text=True, env=env, check=False)
    assert done.returncode != 0 and done.stdout == "barred\n"
    assert to == "onnx" or "custom code" in done.stderr  # the source is a TinyGPT: it takes our code to run it


# A proof that fails.


def swapped(to_stock):
    def convert(model):
        stock = to_stock(model)
        layers = stock.model.layers
        layers[0], layers[1] = layers[1], layers[0]
        return stock

    return convert


def test_a_wrong_conversion_fails_the_proof_and_its_files_are_kept(source, monkeypatch, capsys):
    monkeypatch.setattr(stock_format, "to_stock", swapped(stock_format.to_stock))
    before = tree(source)
    assert main(["export", str(source), "--to", "qwen3"]) == 1
    error = one_line(capsys)
    aside = source / "exports" / "qwen3.unproven"
    assert "greedy tokens" in error and "the logits, by" in error and str(aside) in error
    assert [path.name for path in (source / "exports").iterdir()] == ["qwen3.unproven"]
    assert (aside / "model.safetensors").is_file() and (aside / "tokenizer.json").is_file()
    assert {name: sha for name, sha in tree(source).items() if not name.startswith("exports/")} == before


RESULT = {"logit_difference": 1e-7, "rounding": 1e-7, "prompts": 4, "greedy_tokens": 64, "texts": 18, "unequal": None}


@pytest.fixture
def prover(monkeypatch, tmp_path):
    """Return a function that replaces the proof program by given lines."""

    def install(code: str) -> None:
        (tmp_path / "prover.py").write_text(code)
        monkeypatch.setattr(
            exporting, "proof_command", lambda to, folder, _: [str(tmp_path / "prover.py"), str(folder)]
        )

    return install


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("import sys; print('noise'); sys.exit('boom')", "status 1 (boom)"),
        ("", "status 0 (it printed nothing)"),
        (f"print({json.dumps(RESULT | {'unequal': 'the moon'})!r})", "the moon"),
        ("print('[1]')", "status 0 (it printed nothing)"),
    ],
)
def test_every_way_to_fail_counts(source, prover, capsys, code, words):
    prover(code)
    (source / "exports" / "qwen3.unproven").mkdir(parents=True)  # an earlier one is left alone
    assert main(["export", str(source), "--to", "qwen3"]) == 1
    assert words in one_line(capsys)
    assert sorted(path.name for path in (source / "exports").iterdir()) == ["qwen3.unproven", "qwen3.unproven-2"]


# What can be wrong before anything is loaded, and after.


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["{m}", "--to", "quen3"], "Did you mean"),
        (["{m}", "--to", "pickle"], "(expected one of qwen3, llama, gpt2, onnx, gguf"),
        (["{m}"], "there is no --to"),
        (["--to", "qwen3"], "no MODEL is given"),
        (["{m}", "--to", "qwen3", "--output_dir", "{m}"], "is the model itself"),
        (["{m}", "--to", "qwen3", "--output_dir", "{m}/checkpoint-9"], "is inside the model"),
        (["{m}", "--to", "qwen3", "--output_dir", "{m}/exports"], "is inside the model"),
        (["{m}", "--to", "qwen3", "--output_dir", "{m}/exports/a/b"], "is inside the model"),
        (["{m}", "--to", "qwen3", "--output_dir", "{m}/.."], "exists already"),
        (["{m}", "--to", "qwen3", "--output_dir", "{m}/config.json/x"], "is inside the model"),
        (["{m}", "--to", "qwen3", "--output_dir", "{m}/../file/x"], "is a file"),
        (["{m}", "--to", "qwen3", "--output_dir", "{m}/../file"], "exists already"),
        (["someone/model", "--to", "qwen3"], "--output_dir model-qwen3"),
    ],
)
def test_bad_requests_are_refused_before_anything_is_loaded(source, monkeypatch, capsys, words, error):
    (source.parent / "file").write_text("precious")
    before = tree(source.parent)
    monkeypatch.setattr("tinygpt_hf.model.loading.load_model", None)
    assert main(["export", *(word.replace("{m}", str(source)) for word in words)]) == 2
    assert error in one_line(capsys)
    assert tree(source.parent) == before and not (source / "exports").exists()


@pytest.mark.parametrize(("to", "package"), [("onnx", "onnxscript"), ("gguf", "gguf")])
def test_a_missing_package_is_named_with_its_remedy(source, monkeypatch, to, package):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(UsageError, match=f"{package} is not installed.* pip install 'tinygpt_hf.export.'"):
        check_request(str(source), to, None)


def test_it_goes_by_the_name_of_its_source(source, prover, tmp_path):
    prover(f"print({json.dumps(RESULT)!r})")
    model, tokenizer = load_model(str(source), "cpu")
    model.config.name_or_path = "hub/models--me--model/snapshots/0123456789"
    export(model, tokenizer, str(source), "qwen3", tmp_path / "x")
    assert model.config.name_or_path == "model"


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"qk_norm": False}, "--to llama"),
        (DIALECTS["gpt2"], "--to gpt2"),
        ({"mlp_bias": True}, "mlp_bias False"),
    ],
)
def test_unsupported_options_are_refused_with_advice(make_model, tiny_tokenizer, tmp_path, change, error):
    with pytest.raises(UsageError, match=error):
        export(make_model(tiny_tokenizer, **change), tiny_tokenizer, str(tmp_path), "qwen3", tmp_path / "exports" / "x")
    assert not (tmp_path / "exports").exists()


def test_an_exported_model_a_quantized_one_and_a_broken_one_are_refused(exported, tmp_path, capsys):
    source, target, kind, _ = exported
    before = tree(source)
    assert main(["export", str(source), "--to", kind]) == 2
    assert "exists already" in one_line(capsys) and tree(source) == before
    assert main(["export", str(target), "--to", kind]) == 2
    assert f"is a {kind} already" in one_line(capsys) and not (target / "exports").exists()
    model, tokenizer = load_model(str(source), "cpu")
    model.config.quantization_config = {"quant_method": "torchao"}
    with pytest.raises(UsageError, match="is quantized"):
        export(model, tokenizer, str(source), kind, tmp_path / "x")
    broken = tmp_path / "broken"
    shutil.copytree(source, broken, ignore=shutil.ignore_patterns("exports"))
    os.truncate(broken / "model.safetensors", os.path.getsize(broken / "model.safetensors") - 100)
    assert main(["export", str(broken), "--to", kind]) == 2
    one_line(capsys)
    assert not (broken / "exports").exists()


# Disks and signals.


class Full(storage.System):
    """A disk that is full at the Nth call that matters."""

    def __init__(self, calls: int):
        self.left = calls

    def count(self) -> None:
        self.left -= 1
        if self.left < 0:
            raise OSError(errno.ENOSPC, "No space left on device")

    def write(self, file, data) -> None:
        self.count()
        super().write(file, data)

    def fsync(self, descriptor: int) -> None:
        self.count()
        super().fsync(descriptor)

    def rename(self, old: Path, new: Path) -> None:
        self.count()
        super().rename(old, new)


def test_a_full_disk_leaves_nothing_behind(source, prover, monkeypatch, capsys):
    prover(f"print({json.dumps(RESULT)!r})")
    model, tokenizer = load_model(str(source), "cpu")
    monkeypatch.setattr(reference, "write_reference", lambda model, tokenizer, folder: None)
    before = tree(source)
    for calls in range(100):
        monkeypatch.setattr(storage, "system", Full(calls))
        try:
            export(model, tokenizer, str(source), "qwen3", source / "exports" / "qwen3")
        except OSError as error:
            assert error.errno == errno.ENOSPC
        if (source / "exports" / "qwen3").exists():  # whole: the one call that follows makes its name durable
            break
        assert tree(source) == before and not (source / "exports").exists()
    assert calls > 12
    assert AutoModelForCausalLM.from_pretrained(source / "exports" / "qwen3").dtype == torch.float32


def test_a_disk_that_is_full_for_the_weights_is_one_line(source, monkeypatch, capsys):
    class SafetensorError(Exception):
        __module__ = "safetensors_rust"

    def save(model, folder):
        raise SafetensorError("I/O error: No space left on device (os error 28)")

    monkeypatch.setattr("transformers.Qwen3ForCausalLM.save_pretrained", save)
    before = tree(source)
    assert main(["export", str(source), "--to", "qwen3"]) == 1
    assert "could not be written (I/O error: No space left" in one_line(capsys)
    assert tree(source) == before and not (source / "exports").exists()


KILLED = """
import sys
from tinygpt_hf.cli import main
from tinygpt_hf.errors import RunError, UsageError
from tinygpt_hf.export import export as exporting
exporting.proof_command = lambda *_: [sys.argv[2]]
main(["export", sys.argv[1], "--to", "qwen3"])
"""


def test_a_killed_export_has_no_name_and_the_same_command_works(source, prover, tmp_path, capsys):
    prover("import os, signal; os.kill(os.getppid(), signal.SIGKILL)")
    before = tree(source)
    words = [sys.executable, "-c", KILLED, str(source), str(tmp_path / "prover.py")]
    assert subprocess.run(words, capture_output=True, check=False).returncode == -9
    assert not (source / "exports" / "qwen3").exists()
    assert {name: sha for name, sha in tree(source).items() if not name.startswith("exports/tmp-")} == before
    prover(f"print({json.dumps(RESULT)!r})")
    assert main(["export", str(source), "--to", "qwen3"]) == 0
    assert (source / "exports" / "qwen3" / "model.safetensors").is_file()
