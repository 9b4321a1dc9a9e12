"""What only POSIX has is on no path of ours that everybody takes: a tiny model trains with those modules and names hidden."""

import subprocess
import sys

PROGRAM = """
import builtins, os, signal, sys
import accelerate, datasets, safetensors, torch, transformers  # theirs may use what they find

HIDDEN = {"fcntl", "resource", "pwd", "grp", "termios", "tty"}
real_import = builtins.__import__


def guarded(name, globals=None, *rest, **words):
    if name.split(".")[0] in HIDDEN and (globals or {}).get("__name__", "").startswith("tinygpt_hf"):
        raise ImportError(f"{name} does not exist on Windows")
    return real_import(name, globals, *rest, **words)


builtins.__import__ = guarded
for module, names in ((signal, "SIGUSR1 SIGUSR2 SIGHUP SIGALRM SIGPROF setitimer ITIMER_PROF"),
                      (os, "sched_getaffinity fork killpg getpgid setsid mkfifo geteuid")):
    for name in names.split():
        delattr(module, name)


def sysconf(name, real=os.sysconf):  # psutil asks it for the size of a page
    assert not sys._getframe(1).f_globals["__name__"].startswith("tinygpt_hf"), "os.sysconf does not exist on Windows"
    return real(name)


os.sysconf = sysconf

from pathlib import Path
from tinygpt_hf import train
from tinygpt_hf.model.loading import load_model
from tinygpt_hf.settings.arguments import DataArguments, ModelArguments, TokenizerArguments, TrainingArguments

Path("my.txt").write_text("the cat sat on the mat and the dog ran to the park\\n" * 60)
result = train(
    ModelArguments(hidden_size=16, num_hidden_layers=1, num_attention_heads=2),
    DataArguments(train_file=["my.txt"], block_size=16, num_proc=1),
    TokenizerArguments(tokenizer_type="byte"),
    TrainingArguments(output_dir="run", max_steps=2, per_device_train_batch_size=2, device="cpu", sample_tokens=4),
    quiet=True,
)
load_model("run", "cpu")
print("steps", result.steps)
"""


def test_a_tiny_model_trains_without_what_only_posix_has(tmp_path):
    done = subprocess.run([sys.executable, "-c", PROGRAM], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.split() == ["steps", "2"]
