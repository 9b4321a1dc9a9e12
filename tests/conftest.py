"""What every test stands on: no network, one thread of torch, caches in a folder of their own; a tiny text and tokenizer."""

import atexit
import os
import shutil
import signal
import tempfile

CACHE = tempfile.mkdtemp(prefix="tinygpt-tests-")
atexit.register(shutil.rmtree, CACHE, ignore_errors=True)
os.environ.update(
    HF_HOME=CACHE,
    HF_HUB_OFFLINE="1",
    HF_DATASETS_OFFLINE="1",
    HF_HUB_DISABLE_XET="1",
    HF_HUB_DISABLE_TELEMETRY="1",
    OMP_NUM_THREADS="1",
    TOKENIZERS_PARALLELISM="true",  # what a user gets
)
# a suite started in the background of a script ignores Ctrl-C, and so would the programs that the tests start
signal.signal(signal.SIGINT, signal.default_int_handler)
for name in (
    "PYTHONUNBUFFERED",
    "HF_TOKEN",
    "HF_ENDPOINT",
    "HF_HUB_CACHE",
    "HF_DATASETS_CACHE",
    "HF_MODULES_CACHE",
    "TRANSFORMERS_CACHE",
):
    os.environ.pop(name, None)

import pytest  # noqa: E402 - the libraries below read the environment when they are imported
from hypothesis import HealthCheck, settings  # noqa: E402

# How long an example takes says something of the machine, not of the truth that is tested.
settings.register_profile("any machine", settings(deadline=None, suppress_health_check=[HealthCheck.too_slow]))
settings.load_profile("any machine")

TINY_TEXT = (
    "One day a small dog named Pip found a red ball in the park.\n"
    "Pip took the ball to Anna. Anna was happy, and they played until the sun went down.\n"
    "def play(dog, ball):\n\tif dog.likes(ball):\n\t\treturn 'fun'\n\treturn None\n"
)


@pytest.fixture(scope="session")
def tiny_text() -> str:
    return TINY_TEXT


@pytest.fixture(scope="session")
def tiny_tokenizer():
    from tinygpt_hf.tokenizing.tokenizer import train_tokenizer

    return train_tokenizer([TINY_TEXT] * 3, "bpe", vocab_size=320, max_length=64)


@pytest.fixture(scope="session")
def tiny_folder(tiny_tokenizer, tmp_path_factory):
    """A saved model that has learned nothing, with its tokenizer; 32 positions. Not to be written to."""
    import torch

    from tinygpt_hf import TinyGPTConfig, TinyGPTForCausalLM

    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("tiny") / "model"
    shape = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "max_position_embeddings": 32}
    TinyGPTForCausalLM(TinyGPTConfig(vocab_size=len(tiny_tokenizer), **shape)).save_pretrained(folder)
    tiny_tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(autouse=True, scope="session")
def one_thread_of_torch():
    import torch

    torch.set_num_threads(1)
