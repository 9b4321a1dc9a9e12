"""Transformers' own common tests (configuration, model, generation, training, tensor parallel, FSDP), run on TinyGPT.

    python tests/compat/common_tests.py                     # everything, both dialects
    python tests/compat/common_tests.py --fast              # without the tests that compile (75 seconds each)
    python tests/compat/common_tests.py --models gpt2 tinygpt-gpt2 -k resize

The library's wheel holds no tests. Its source distribution has the common ones; it lacks tests/causal_lm_tester.py,
tests/generation, tests/exporters and tests/distributed_testing_utils.py, which come from its repository (the last, if the
checkout is too old, is written here). Both are brought together in a work folder, with one small test module a model, and
nothing of theirs enters this repository. Their tests import `parameterized` (pip install parameterized).

The yardstick is the stock model beside each dialect: a test that stock passes and TinyGPT does not is listed, a skip as
much as a failure, and so is a test that fails on TinyGPT and merely skips on stock. Exit status 1 when the list is not
empty. What cannot apply stands in EXCEPTIONS, each with its reason; an exception nothing needs is listed too.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import xml.etree.ElementTree as ElementTree
from collections import Counter
from importlib.metadata import version
from pathlib import Path

from tinygpt_hf.model import conversion

ROOT = Path(__file__).resolve().parents[2]
VERSION = version("transformers")
REPOSITORY = "https://github.com/huggingface/transformers"
FROM_CHECKOUT = ("causal_lm_tester.py", "generation", "exporters")

# one key head a query head, and no dropout where two runs of a training step are compared
GPT2_FIELDS = {"num_key_value_heads": 4, "resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
# name -> module, name of the model in it, what its configuration sets beyond the tester's values
STOCK = {
    "qwen3": ("transformers.models.qwen3", "Qwen3Model", "Qwen3ForCausalLM", {}),
    "llama": ("transformers.models.llama", "LlamaModel", "LlamaForCausalLM", {}),
    "gpt2": ("transformers.models.gpt2", "GPT2Model", "GPT2LMHeadModel", GPT2_FIELDS),
}
TINYGPT = ("tinygpt_hf.model.modeling_tinygpt", "TinyGPTModel", "TinyGPTForCausalLM")
GPT2_DIALECT = conversion.DIALECTS["gpt2"] | {"rms_norm_eps": 1e-5, "num_key_value_heads": 4}
MODELS = STOCK | {"tinygpt": (*TINYGPT, {}), "tinygpt-gpt2": (*TINYGPT, GPT2_DIALECT)}
YARDSTICKS = {"tinygpt": ("qwen3", "llama"), "tinygpt-gpt2": ("gpt2",)}

EXCEPTIONS = {  # dialect -> test (a pattern of the whole name) -> why it cannot apply
    "tinygpt": {"test_sliding_window_mask": "there is no sliding attention, and so no window to see in the mask"},
    "tinygpt-gpt2": {
        r"test_model_rope_scaling_\w+": "positions are learned; one configuration class keeps rope_parameters for both",
    },
}

TEST_MODULE = """
import unittest

from {module} import *
from {module} import {base}, {head}
from tests.causal_lm_tester import CausalLMModelTest, CausalLMModelTester

FIELDS = {fields}


class Tester(CausalLMModelTester):
    base_model_class = {base}
    causal_lm_class = {head}
    {other_classes}

    def __init__(self, parent):
        super().__init__(parent, **FIELDS)
        self.attention_probs_dropout_prob = 0.0  # two runs of a training step are compared


class Test(CausalLMModelTest, unittest.TestCase):
    model_tester_class = Tester
    _torch_compile_train_cls = {head}

    def is_pipeline_test_to_skip(self, *arguments, **options):
        return True  # they load tokenizers from the Hub
"""
TINY = {"num_attention_heads": 4, "num_key_value_heads": 2}
OTHER_CLASSES = """
    from tinygpt_hf.model.configuration_tinygpt import TinyGPTConfig as config_class
    question_answering_class = TinyGPTForQuestionAnswering
    sequence_classification_class = TinyGPTForSequenceClassification
    token_classification_class = TinyGPTForTokenClassification
"""

# The library turns its tests on ranks on for a list of its own models; here they run on all.
CONFTEST = """
import tests.test_fsdp_mixin, tests.test_tensor_parallel_mixin

tests.test_tensor_parallel_mixin.TP_DISTRIBUTED_TEST_MODEL_TYPES = None
tests.test_fsdp_mixin.FSDP_DISTRIBUTED_TEST_MODEL_TYPES = None
"""
COMMON_FIELDS = """
config_common_kwargs = {
    "return_dict": False, "output_hidden_states": True, "output_attentions": True, "dtype": "float16",
    "chunk_size_feed_forward": 3, "architectures": ["SomeModel"], "id2label": {0: "only"}, "label2id": {"only": 0},
    "problem_type": "regression",
}
"""
# Used when the checkout is older than the file: the ranks are processes of this machine that speak gloo.
RANKS = """
import os

import torch


def _get_distributed_backend():
    return "gloo"


def _get_distributed_device_type():
    return "cpu"


def _get_rank_device(rank):
    return torch.device("cpu")


def _set_rank_device(rank):
    torch.set_num_threads(1)


def _start_rank_processes(function, args, nprocs):
    torch.multiprocessing.spawn(function, args=args, nprocs=nprocs, join=True)


def _in_group(rank, world_size, file, function, args, options):
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(world_size))
    _set_rank_device(rank)
    torch.distributed.init_process_group("gloo", init_method=f"file://{file}", rank=rank, world_size=world_size)
    try:
        function(rank, *args, **options)
    finally:
        torch.distributed.destroy_process_group()


def run_distributed(world_size):
    def wrap(function):
        def run(*args, **options):
            import tempfile

            with tempfile.TemporaryDirectory() as folder:
                rest = world_size, os.path.join(folder, "store"), function, args, options
                _start_rank_processes(_in_group, rest, world_size)

        return run

    return wrap
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sdist", type=Path, help="source distribution of the library, a tarball or a folder")
    parser.add_argument("--checkout", type=Path, help="checkout of the library's repository")
    parser.add_argument("--work", type=Path, help="folder for downloads and results; a temporary one by default")
    names = list(MODELS)
    parser.add_argument("--models", nargs="+", choices=names, default=names, metavar="NAME", help=", ".join(names))
    parser.add_argument("--fast", action="store_true", help="leave out the tests that compile")
    parser.add_argument("-k", dest="expression", help="only the tests pytest selects with this expression")
    arguments = parser.parse_args()
    if arguments.work:
        arguments.work.mkdir(parents=True, exist_ok=True)
        return run(arguments, arguments.work.resolve())
    with tempfile.TemporaryDirectory(prefix="tinygpt-common-tests-") as work:
        return run(arguments, Path(work))


def run(arguments: argparse.Namespace, work: Path) -> int:
    sdist = unpacked(arguments.sdist, work) if arguments.sdist else download_sdist(work)
    checkout = arguments.checkout or clone(work)
    assemble(sdist, checkout, work / "assembled")
    results = {}
    for name in arguments.models:
        results[name] = run_tests(name, work, arguments.fast, arguments.expression)
        print_row(name, results[name])
    all_run = not arguments.fast and not arguments.expression
    compared = [name for name, stock in YARDSTICKS.items() if name in results and results.keys() & set(stock)]
    problems = [line for name in compared for line in shortfall(name, results, all_run)]
    reasons = [f"except {test} ({name}): {why}" for name in compared for test, why in EXCEPTIONS[name].items()]
    verdict = (
        "Everything stock passes, TinyGPT passes." if compared else "Nothing was compared: name a stock model too."
    )
    print("\n".join(["", *(problems or [verdict, *reasons])]))
    return bool(problems)


# --- the library's files


def download_sdist(work: Path) -> Path:
    if not list(work.glob("transformers-*.tar.gz")):
        flags = ["--no-deps", "--no-binary", ":all:", "--no-build-isolation", "--dest", str(work)]
        subprocess.run([sys.executable, "-m", "pip", "download", *flags, f"transformers=={VERSION}"], check=True)
    return unpacked(next(iter(work.glob("transformers-*.tar.gz"))), work)


def unpacked(sdist: Path, work: Path) -> Path:
    if sdist.is_dir():
        return sdist
    with tarfile.open(sdist) as archive:
        archive.extractall(work / "sdist", filter="data")
    return next((work / "sdist").iterdir())


def clone(work: Path) -> Path:
    target = work / "checkout"
    if not target.exists():
        flags = ["--depth", "1", "--branch", f"v{VERSION}", "--filter=blob:none", "--sparse"]
        subprocess.run(["git", "clone", *flags, REPOSITORY, str(target)], check=True)
        folders = [f"tests/{name}" for name in FROM_CHECKOUT if "." not in name]  # files of tests/ come along
        subprocess.run(["git", "-C", str(target), "sparse-checkout", "set", *folders], check=True)
    return target


def assemble(sdist: Path, checkout: Path, target: Path) -> None:
    shutil.rmtree(target, ignore_errors=True)
    tests = target / "tests"
    shutil.copytree(sdist / "tests", tests)
    for name in FROM_CHECKOUT:
        source = checkout / "tests" / name
        shutil.copytree(source, tests / name) if source.is_dir() else shutil.copy(source, tests)
    ranks = checkout / "tests" / "distributed_testing_utils.py"
    (tests / ranks.name).write_text(ranks.read_text() if ranks.exists() else RANKS)
    (tests / "utils").mkdir(exist_ok=True)
    (tests / "utils" / "test_configuration_utils.py").write_text(COMMON_FIELDS)
    (tests / "utils" / "tiny_model_summary.json").write_text("{}")
    for folder in (tests, tests / "utils"):
        (folder / "__init__.py").touch()
    (tests / "conftest.py").write_text(CONFTEST)
    (target / "pytest.ini").write_text("[pytest]\n")
    import transformers

    (target / "src").mkdir()
    (target / "src" / "transformers").symlink_to(Path(transformers.__file__).parent)
    for name, (module, base, head, fields) in MODELS.items():
        other_classes = OTHER_CLASSES.strip() if name in YARDSTICKS else ""
        text = TEST_MODULE.format(
            module=module, base=base, head=head, fields=repr(TINY | fields), other_classes=other_classes
        )
        (tests / f"test_{name.replace('-', '_')}.py").write_text(text)


# --- running and comparing


class Result:
    """Hold the outcome of one test: passed, failed, or skipped in some parts (a test may skip some of its subtests)."""

    def __init__(self, case: ElementTree.Element):
        failures = [*case.iter("failure"), *case.iter("error")]
        skips = list(case.iter("skipped"))
        self.outcome = "failed" if failures else "skipped" if skips else "passed"
        self.skips = len(skips)
        self.reason = " ".join(" ".join(part.get("message") or "" for part in (failures + skips)[:1]).split())[:160]
        self.seconds = float(case.get("time"))


def run_tests(name: str, work: Path, fast: bool, expression: str | None) -> dict[str, Result]:
    """Test -> its result. One process, with caches of its own."""
    report, log = work / f"{name}.xml", work / f"{name}.log"
    report.unlink(missing_ok=True)
    selection = " and ".join(filter(None, ["not compile" if fast else "", f"({expression})" if expression else ""]))
    with tempfile.TemporaryDirectory(dir=work) as caches, log.open("w") as output:
        # the verbosity in the environment changes what the library's tests see in its log
        environment = {k: v for k, v in os.environ.items() if k not in ("TRANSFORMERS_VERBOSITY", "PYTEST_ADDOPTS")}
        environment |= {
            "PYTHONPATH": os.pathsep.join([str(work / "assembled"), str(ROOT)]),
            "HF_HOME": f"{caches}/hub",
            "HF_HUB_OFFLINE": "1",
            "TORCHINDUCTOR_CACHE_DIR": f"{caches}/inductor",
            "TMPDIR": caches,
            "OMP_NUM_THREADS": "1",
            "TOKENIZERS_PARALLELISM": "false",
            "CUDA_VISIBLE_DEVICES": "",
        }
        command = [sys.executable, "-m", "pytest", f"tests/test_{name.replace('-', '_')}.py", "-q", "-W", "ignore"]
        command += ["-p", "no:cacheprovider", "--timeout", "900", f"--junitxml={report}"]
        command += ["-k", selection] if selection else []
        done = subprocess.run(
            command, cwd=work / "assembled", env=environment, stdout=output, stderr=subprocess.STDOUT, check=False
        )
    if done.returncode not in (0, 1) or not report.exists():
        raise SystemExit(f"error: pytest ended with {done.returncode} on {name}: {log.read_text()[-3000:]}")
    return {case.get("name"): Result(case) for case in ElementTree.parse(report).iter("testcase")}


def print_row(name: str, results: dict[str, Result]) -> None:
    count = Counter(result.outcome for result in results.values())
    figures = "".join(f"{count[outcome]:5} {outcome}" for outcome in ("passed", "failed", "skipped"))
    seconds = sum(result.seconds for result in results.values())
    print(f"{name:14}{figures} {len(results):5} in all {seconds:7.0f} s", flush=True)


def shortfall(name: str, results: dict[str, dict[str, Result]], all_run: bool) -> list[str]:
    """List where TinyGPT does worse than the best stock model beside it; and, if all tests ran, exceptions nothing needed."""
    beside = [results[stock] for stock in YARDSTICKS[name] if stock in results]
    lines, used = [], set()
    for test in sorted(set(results[name]).union(*beside)):
        ours = results[name].get(test)
        theirs = min((stock[test] for stock in beside if test in stock), key=badness, default=None)
        if ours and (badness(ours) <= badness(theirs) if theirs else ours.outcome != "failed"):
            continue
        exception = next((pattern for pattern in EXCEPTIONS[name] if re.fullmatch(pattern, test)), None)
        if exception:
            used.add(exception)
            continue
        outcome = f"{ours.outcome} ({ours.reason})" if ours else "absent"
        lines.append(f"{name}: {test} {outcome}; stock {theirs.outcome if theirs else 'absent'}")
    unused = [pattern for pattern in EXCEPTIONS[name] if pattern not in used and all_run]
    return lines + [f"{name}: the exception {pattern} is not needed" for pattern in unused]


def badness(result: Result) -> tuple[int, int]:
    """Order results: passed before skipped before failed, and the fewer parts skipped the better."""
    return ("passed", "skipped", "failed").index(result.outcome), result.skips


if __name__ == "__main__":
    sys.exit(main())
