"""`transformers chat`, the library's own client, talks to `tinygpt serve` and to `transformers serve` with an exported folder;
the program for ONNX Runtime in docs/serving.md says what the model says.

Run by `make compat-test`; the servers are those of tests/inference/test_serving.py.
"""

import os
import re
import subprocess
import sys

import pytest
from conftest import ROOT
from talker import ANSWERS, STORY
from test_serving import servers, talker  # noqa: F401 - fixtures

from tinygpt_hf.export import onnx_graph as onnx_format

pytestmark = pytest.mark.compat


@pytest.mark.parametrize("which", [0, 1], ids=["tinygpt serve", "transformers serve of the export"])
def test_transformers_chat_holds_a_conversation(servers, which):  # noqa: F811
    server = servers[which]
    words = [sys.executable, "-m", "transformers.cli.transformers", "chat", server.name, server.address]
    # offline mode would refuse this machine too; a Hub that nobody is says the same for every other place
    online = {name: value for name, value in os.environ.items() if name != "HF_HUB_OFFLINE"}
    done = subprocess.run(
        [*words, "do_sample=False", "max_new_tokens=40"],
        input="".join(f"{question}\n" for question in ANSWERS) + "!exit\n",
        env=online | {"HF_ENDPOINT": "http://127.0.0.1:9"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    lines = [line.strip() for line in done.stdout.splitlines()]
    assert [line for line in lines if line in ANSWERS.values()] == list(ANSWERS.values())
    assert "<|im_end|>" not in done.stdout


def test_the_program_for_onnx_runtime_says_what_the_model_says(talker, tmp_path):  # noqa: F811
    page = (ROOT / "docs" / "serving.md").read_text()
    (program,) = [block for block in re.findall(r"```python\n(.*?)```", page, re.S) if "onnxruntime" in block]
    folder = tmp_path / "runs" / "quickstart" / "exports" / "onnx"
    folder.mkdir(parents=True)
    onnx_format.write(talker.model, talker.tokenizer, folder)
    absent = "import sys\nfor name in ('torch', 'transformers', 'tinygpt_hf'):\n    sys.modules[name] = None\n"
    done = subprocess.run([sys.executable, "-c", absent + program], cwd=tmp_path, capture_output=True, text=True)
    assert done.stdout == STORY.removeprefix("One day") + "\n", done.stderr[-2000:]
