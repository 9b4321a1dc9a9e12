"""The Auto classes know TinyGPT whatever is imported first, importing the package costs next to nothing, and a saved
folder works in a new process, with the package and without it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import tinygpt_hf
from tinygpt_hf import TinyGPTConfig, TinyGPTForCausalLM

ROOT = Path(__file__).parent.parent

IMPORT_ORDERS = [
    "import tinygpt_hf; from transformers import AutoConfig, AutoModelForCausalLM",
    "import transformers; from transformers import AutoConfig, AutoModelForCausalLM; import tinygpt_hf",
    "from transformers import AutoConfig; import tinygpt_hf",
    "import tinygpt_hf.model.modeling_tinygpt",
    "import tinygpt_hf.model.configuration_tinygpt",
]

# One process with all that transformers needs and nothing of transformers, forked once for every order: a fresh state
# for each without paying for torch each time.
TRY_ORDERS = """
import json, os, sys, traceback
import accelerate, huggingface_hub, jinja2, safetensors.torch, tokenizers, torch, torch._dynamo
import torch.distributed.checkpoint, torch.distributed.fsdp, torch.distributed.tensor, torch.onnx

def check(folder, logits):
    import transformers, tinygpt_hf
    from transformers import AutoConfig
    config = AutoConfig.from_pretrained(folder)
    assert type(config).__module__ == "tinygpt_hf.model.configuration_tinygpt", type(config)
    assert type(AutoConfig.for_model("tinygpt")) is type(config) is tinygpt_hf.TinyGPTConfig
    # transformers serve and TRL ask the library itself, possibly before any model class has been loaded
    assert transformers.TinyGPTForCausalLM is tinygpt_hf.TinyGPTForCausalLM
    assert transformers.TinyGPTConfig is tinygpt_hf.TinyGPTConfig
    assert not hasattr(transformers, "TinyGPTForNothing")
    from transformers import AutoModel, AutoModelForCausalLM
    assert type(AutoModel.from_config(config)) is tinygpt_hf.TinyGPTModel
    model = AutoModelForCausalLM.from_pretrained(folder)
    assert type(model) is tinygpt_hf.TinyGPTForCausalLM
    assert model(torch.arange(12).view(2, 6)).logits.tolist() == logits
    from transformers.models.auto import modeling_auto
    assert modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES["tinygpt"] == "TinyGPTForCausalLM"
    assert modeling_auto.MODEL_MAPPING_NAMES["tinygpt"] == "TinyGPTModel"
    # by now the library has replaced its own module object; its own lazy names still work, and so do ours
    transformers = sys.modules["transformers"]
    assert transformers.TinyGPTForCausalLM is tinygpt_hf.TinyGPTForCausalLM
    assert transformers.Qwen3Config.model_type == "qwen3" and transformers.__version__

assert "transformers" not in sys.modules
sys.path.insert(0, sys.argv[2])
failed = {}
for order in json.loads(sys.argv[3]):
    reader, writer = os.pipe()
    if (child := os.fork()) == 0:
        try:
            exec(order, globals())
            held = globals().get("transformers")  # the object the order imported, which the library may have replaced
            check(sys.argv[1], json.loads(sys.argv[4]))
            assert held is None or held.TinyGPTForCausalLM is sys.modules["tinygpt_hf"].TinyGPTForCausalLM
        except BaseException:
            os.write(writer, traceback.format_exc()[-2000:].encode())
        os._exit(0)
    os.close(writer)
    os.waitpid(child, 0)
    if error := os.fdopen(reader, "rb").read().decode():
        failed[order] = error
assert not failed, "\\n".join(f"--- {order}\\n{error}" for order, error in failed.items())
"""

WITHOUT_THE_PACKAGE = '''
import json, os, sys

class Blocked:
    """An editable install would make the package importable from anywhere."""
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "tinygpt_hf":
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Blocked())
folder, again = sys.argv[1:3]
import torch
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, AutoModelForSequenceClassification

try:
    AutoConfig.from_pretrained(folder, trust_remote_code=False)
except ValueError:
    pass
else:
    raise AssertionError("without the package and without trust there is no TinyGPT")
trust = {"trust_remote_code": True}
ids = torch.arange(12).view(2, 6)
assert AutoConfig.from_pretrained(folder, **trust).n_layer == 2
model = AutoModelForCausalLM.from_pretrained(folder, **trust)
assert type(model).__module__.startswith("transformers_modules.")
base = AutoModel.from_pretrained(folder, **trust)
assert torch.equal(base(ids).last_hidden_state, model.model(ids).last_hidden_state)
assert AutoModelForSequenceClassification.from_pretrained(folder, **trust)(ids[:1]).logits.shape == (1, 2)
model.save_pretrained(again)
logits = AutoModelForCausalLM.from_pretrained(again, **trust)(ids).logits
assert torch.equal(logits, model(ids).logits)
print(json.dumps([sorted(os.listdir(again)), logits.tolist()]))
'''

LIGHT_IMPORT = """
import sys
sys.path.insert(0, sys.argv[1])
before = set(sys.modules)
import tinygpt_hf
new = {name for name in set(sys.modules) - before if name.split(".")[0] not in sys.stdlib_module_names}
assert new == {"tinygpt_hf", "tinygpt_hf._moved", "tinygpt_hf._register"}, new
assert "TinyGPTForCausalLM" in dir(tinygpt_hf)
heavy = {"torch", "transformers", "numpy", "tokenizers", "datasets"} & set(sys.modules)
assert not heavy, heavy
try:
    tinygpt_hf.no_such_name
except AttributeError as error:
    assert "no_such_name" in str(error)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("saved") / "model"
    config = TinyGPTConfig(vocab_size=31, n_embd=32, n_layer=2, n_head=4, num_key_value_heads=2)
    TinyGPTForCausalLM(config).save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def logits(folder) -> list:
    return TinyGPTForCausalLM.from_pretrained(folder)(torch.arange(12).view(2, 6)).logits.tolist()


def run(script: str, *arguments: object, cwd: Path) -> str:
    """Run a script in a new interpreter, away from the source tree."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | {"HF_HOME": str(cwd)}
    command = [sys.executable, "-c", script, *map(str, arguments)]
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-6000:]
    return done.stdout


def test_importing_the_package_is_free(tmp_path):
    run(LIGHT_IMPORT, ROOT, cwd=tmp_path)


def test_every_public_name_is_there():
    for name in tinygpt_hf.__all__:
        assert getattr(tinygpt_hf, name) is not None


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the orders are tried in forks")
def test_every_import_order_registers_the_classes_and_computes_the_same_bits(folder, logits, tmp_path):
    run(TRY_ORDERS, folder, ROOT, json.dumps(IMPORT_ORDERS), json.dumps(logits), cwd=tmp_path)


def test_a_new_process_without_the_package_computes_and_saves_the_same(folder, logits, tmp_path):
    files, theirs = json.loads(run(WITHOUT_THE_PACKAGE, folder, tmp_path / "again", cwd=tmp_path).splitlines()[-1])
    assert theirs == logits
    assert files == sorted(os.listdir(folder))
    for name in ("configuration_tinygpt.py", "modeling_tinygpt.py"):
        assert (folder / name).read_bytes() == (ROOT / "tinygpt_hf" / "model" / name).read_bytes()
    assert (tmp_path / "again" / "config.json").read_text() == (folder / "config.json").read_text()
