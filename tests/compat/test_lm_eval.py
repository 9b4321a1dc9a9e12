"""`tinygpt evaluate --tasks lm_eval:NAME` gives the numbers lm-evaluation-harness gives, on a task of local files.

Run by `make compat-test`. The environment takes a minute the first time.
"""

import json

import pytest
from conftest import ROOT, made_environment, run_elsewhere

pytestmark = [pytest.mark.compat, pytest.mark.timeout(900)]

PACKAGES = ["lm_eval==0.4.13", "torch==2.13.0", "transformers==5.23.0", "accelerate==1.15.0", "evaluate==0.4.6"]
YAML = """
task: endings
dataset_path: json
dataset_kwargs: {data_files: {test: FILE}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{text}}"
doc_to_choice: "{{choices}}"
doc_to_target: "{{label}}"
metric_list: [{metric: acc, aggregation: mean, higher_is_better: true}]
"""
ROWS = [
    {"text": "One day Pip found a red", "choices": ["ball", "the"], "label": 0},
    {"text": "Anna was", "choices": ["and", "happy"], "label": 1},
    {"text": "They played until the", "choices": ["sun", "def"], "label": 0},
]
PROGRAM = """
import json, os, sys
import tinygpt_hf, lm_eval
folder, tasks = sys.argv[1:]
ours = tinygpt_hf.evaluate(folder, tasks=["lm_eval:endings"], tasks_dir=tasks)["tasks"]["lm_eval:endings"]
manager = lm_eval.tasks.TaskManager(include_path=tasks)
arguments = {"pretrained": folder, "device": "cpu", "dtype": "float32"}
theirs = lm_eval.simple_evaluate(model="hf", model_args=arguments, tasks=["endings"], task_manager=manager)
print(json.dumps([ours, theirs["results"]["endings"]["acc,none"]]))
"""


def test_its_own_numbers_on_a_local_task(tiny_folder, tmp_path):
    (tmp_path / "endings.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    (tmp_path / "endings.yaml").write_text(YAML.replace("FILE", str(tmp_path / "endings.jsonl")))
    python = made_environment("lm_eval", PACKAGES)
    words = str(tiny_folder), str(tmp_path)
    said = run_elsewhere(python, PROGRAM, *words, path=str(ROOT), HF_HUB_OFFLINE="1", HF_HOME=str(tmp_path / "cache"))
    ours, theirs = json.loads(said.splitlines()[-1])
    assert ours["acc"] == theirs and ours["acc_stderr"] >= 0
