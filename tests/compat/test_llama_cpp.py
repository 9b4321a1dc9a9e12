"""llama.cpp itself, in an environment of its own, runs what `export --to gguf` writes: same token ids, same greedy text.

Run by `make compat-test`. The environment takes half a minute and 250 MB the first time, the tests four minutes.
"""

import json
import os
import random
import subprocess
import sysconfig
from pathlib import Path

import pytest
import torch
from conftest import made_environment
from tokenizers import Regex, Tokenizer, models, pre_tokenizers, trainers
from transformers import GenerationConfig, PreTrainedTokenizerFast

from tinygpt_hf import TinyGPTConfig, TinyGPTForCausalLM
from tinygpt_hf.export import gguf_file as gguf_format
from tinygpt_hf.export.export import proof_command
from tinygpt_hf.export.gguf_vocabulary import PRE_TYPES
from tinygpt_hf.export.reference import TOLERANCE, write_reference
from tinygpt_hf.model.conversion import DIALECTS
from tinygpt_hf.tokenizing.tokenizer import train_tokenizer
from tinygpt_hf.toyland import corpus as toyland

pytestmark = pytest.mark.compat

PACKAGES = ["xllamacpp==2026.10.11549", "gguf==0.19.0", "numpy", "safetensors", "tokenizers==0.23.3"]
VOCABULARY = 8192  # with a small one a wrong pre-tokenizer passes unseen
# reads [[path, question]] and answers [answer]; the questions are those of llama.cpp's own server,
# whose settings are as a user finds them: a cache in half precision
CLIENT = """
import json, sys, urllib.request, xllamacpp
settings = xllamacpp.CommonParams()
settings.model.path, settings.n_ctx, settings.n_parallel = sys.argv[1], 256, 1
settings.cpuparams.n_threads = 1
server, answers = xllamacpp.Server(settings), []
open_url = urllib.request.build_opener(urllib.request.ProxyHandler({})).open
for path, question in json.load(sys.stdin):
    request = urllib.request.Request(server.listening_address + path, json.dumps(question).encode(),
                                     {"Content-Type": "application/json"})
    with open_url(request, timeout=300) as answer:
        answers.append(json.load(answer))
print(json.dumps(answers))
"""
NASTY = [
    "", " ", "   ", "a", "\n", "\n\n\n", "\t\tx\t", " \n \n", "a  b   c    d", "  leading", "trailing  ", "\r\n\r\n", "x\r\ny",
    "don't I'll we've they're I'm he'd it's 'tis 'S 'LL DON'T", "1234567890", "3.14159 1,000,000 0x1F 1e-9 ½ ²³", "  12  345",
    "naïve café Ünïcödé", "e\u0301 a\u0308 n\u0303", "日本語のテキスト", "你好，世界！", "한국어 문장",
    "العربية", "हिन्दी", "ไทย", "Ελληνικά Кириллица",
    "🎉", "👩‍👩‍👧‍👦 🇩🇪 ❤️ 👍🏽", "\u200b\u200d\ufeff\u00a0\u2003\u2028\u3000",
    "<|im_start|>user\nhi<|im_end|>\n", "a<|endoftext|>b<|pad|>c",
    "<|im_end", "<s></s>[INST] <unk> <0x0A>", "{{ x }}{% y %}", "\x00\x01\x7f", "!!!???...---===", "a_b-c.d/e\\f", "x" * 200,
    "ALLCAPS camelCase snake_case", "def f(x):\n    return {'a': [1, 2]}\n", "https://example.org/?q=1&r=%20", "“quotes” — dash…",
]  # fmt: skip


@pytest.fixture(scope="session")
def llama_python() -> str:
    return made_environment("llama-cpp", PACKAGES)


@pytest.fixture(scope="session")
def ask(llama_python):
    def answers(folder: Path, questions: list) -> list:
        done = subprocess.run(
            [llama_python, "-c", CLIENT, str(folder / "model.gguf")],
            input=json.dumps(questions), capture_output=True, text=True,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-3000:]
        return json.loads(done.stdout.strip().splitlines()[-1])

    return answers


@pytest.fixture(scope="session")
def texts() -> list[str]:
    """Stories and programs: about three megabytes of varied text that every Python has."""
    library = sorted(Path(sysconfig.get_paths()["stdlib"]).glob("*.py"))
    sources = [path.read_text(encoding="utf-8", errors="replace") for path in library]
    stories = [document["text"] for document in toyland.documents(0, 800) if "text" in document]
    return [source[k : k + 2000] for source in sources for k in range(0, min(len(source), 30000), 2000)] + stories


@pytest.fixture(scope="session")
def tokenizer(texts):
    tokenizer = train_tokenizer(texts, "bpe", VOCABULARY, max_length=256)
    assert len(tokenizer) == VOCABULARY
    return tokenizer


def passages(texts) -> list[str]:
    """What the models learn by heart: four stories and four programs."""
    return [text[:300] for text in texts[-4:] + texts[40:800:200]]


def trained(texts, tokenizer, fields: dict) -> TinyGPTForCausalLM:
    """A model that knows some passages by heart: its greedy text is varied and every token of it stands out."""
    torch.manual_seed(0)
    size = {"hidden_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4, "max_position_embeddings": 256}
    ids = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    model = TinyGPTForCausalLM(TinyGPTConfig(**size | {"vocab_size": len(tokenizer)} | ids | fields))
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    batch = tokenizer(passages(texts), return_tensors="pt", padding=True, padding_side="right")
    labels = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)
    for _ in range(100):
        optimizer.zero_grad()
        loss = model(**batch, labels=labels).loss
        loss.backward()
        optimizer.step()
    assert loss < 0.3
    return model.eval()


MODELS = {
    "qwen3": {"num_key_value_heads": 2, "head_dim": 64},
    "llama": {"qk_norm": False, "num_key_value_heads": 2, "tie_word_embeddings": False},
    "llama with biases": {"qk_norm": False, "attention_bias": True, "mlp_bias": True, "num_attention_heads": 2},
    "gpt2": DIALECTS["gpt2"],
}


@pytest.fixture(scope="session", params=list(MODELS))
def exported(request, texts, tokenizer, tmp_path_factory):
    """(model, folder) of one architecture."""
    model, folder = trained(texts, tokenizer, MODELS[request.param]), tmp_path_factory.mktemp("gguf")
    gguf_format.check(model, tokenizer)
    gguf_format.write(model, tokenizer, folder)
    return model, folder


def strange_strings() -> list[str]:
    """Write characters of every kind in an order nobody would write."""
    rng = random.Random(0)
    ranges = [range(32, 127), range(9, 14), range(160, 591), range(880, 1327), range(0x590, 0x6FF)]
    ranges += [range(0x4E00, 0x9FFF), range(0x1F300, 0x1F6FF), range(32, 33)]
    return ["".join(chr(rng.choice(rng.choice(ranges))) for _ in range(24)) for _ in range(200)]


def token_ids(ask, folder, strings: list[str]) -> list[list[int]]:
    questions = [["/tokenize", {"content": text, "add_special": True, "parse_special": True}] for text in strings]
    return [answer["tokens"] for answer in ask(folder, questions)]


def test_same_token_ids_greedy_text_and_conversation(ask, exported, texts, tokenizer):
    model, folder = exported
    strings = NASTY + strange_strings()
    ids_there = token_ids(ask, folder, strings)
    assert [text for text, ids in zip(strings, ids_there, strict=True) if tokenizer(text)["input_ids"] != ids] == []

    question = {"temperature": 0, "top_k": 1, "n_predict": 64, "return_tokens": True, "cache_prompt": False}
    prompts = [text[:20] for text in passages(texts)[::2]]
    answers = ask(folder, [["/completion", {"prompt": prompt, **question}] for prompt in prompts])
    model.generation_config = GenerationConfig(eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id)
    compared = []
    for prompt, answer in zip(prompts, answers, strict=True):
        inputs = tokenizer(prompt, return_tensors="pt")["input_ids"]
        with torch.no_grad():
            expected = model.generate(inputs, max_new_tokens=64, do_sample=False)[0, inputs.shape[1] :].tolist()
        assert answer["tokens"] == expected
        assert answer["content"] == tokenizer.decode(expected, skip_special_tokens=True)
        compared += expected
    assert len(compared) > 3 * 64 and len(set(compared)) > 48  # nothing ended at once, and it is no loop

    messages = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Hi \n there"}]
    chat = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    template, answer = ask(
        folder, [["/apply-template", {"messages": messages}], ["/v1/chat/completions", {"messages": messages, "max_tokens": 8}]]
    )  # fmt: skip
    assert template["prompt"] == chat
    assert answer["usage"]["prompt_tokens"] == len(tokenizer(chat)["input_ids"])


def test_the_proof_runs_llama_cpp_where_it_is_installed(llama_python, exported, tokenizer, tmp_path):
    model, folder = exported
    write_reference(model, tokenizer, tmp_path)
    command = [llama_python, "-P", *proof_command("gguf", folder, tmp_path)]
    env = os.environ | {"PYTHONPATH": sysconfig.get_paths()["purelib"]}  # torch and transformers are those of the tests
    done = subprocess.run(command, capture_output=True, text=True, env=env)
    result = json.loads(done.stdout.strip().splitlines()[-1])
    assert result["unequal"] is None
    assert result["logit_difference"] <= TOLERANCE * result["rounding"]

    reference = json.loads((tmp_path / "reference.json").read_text())
    reference["token_ids"][0].pop()
    (tmp_path / "reference.json").write_text(json.dumps(reference))
    done = subprocess.run(command, capture_output=True, text=True, env=env)
    assert "token ids" in json.loads(done.stdout.strip().splitlines()[-1])["unequal"]


def pre_tokenizer_of(description: dict):
    if description["type"] == "Sequence":
        return pre_tokenizers.Sequence([pre_tokenizer_of(part) for part in description["pretokenizers"]])
    if description["type"] == "Digits":
        return pre_tokenizers.Digits(individual_digits=description["individual_digits"])
    if description["type"] == "Split":
        return pre_tokenizers.Split(Regex(description["pattern"]["Regex"]), "isolated")
    return pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=description["use_regex"])


@pytest.mark.parametrize("pre", [*PRE_TYPES, "char", "byte"])
def test_every_tokenizer_that_is_accepted_makes_the_same_ids(ask, texts, pre, tmp_path):
    if pre in PRE_TYPES:
        core = Tokenizer(models.BPE(ignore_merges=pre == "llama-bpe"))
        core.pre_tokenizer = pre_tokenizer_of(PRE_TYPES[pre])
        alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
        special = ["<|endoftext|>", "<|pad|>", "<|im_start|>", "<|im_end|>"]
        core.train_from_iterator(
            texts, trainers.BpeTrainer(vocab_size=VOCABULARY, special_tokens=special, initial_alphabet=alphabet)
        )
        tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, bos_token=special[0], eos_token=special[0])
    else:
        tokenizer = train_tokenizer(texts, pre)
    size = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 1, "max_position_embeddings": 64}
    model = TinyGPTForCausalLM(TinyGPTConfig(**size, vocab_size=len(tokenizer)))
    gguf_format.check(model, tokenizer)
    gguf_format.write(model, tokenizer, tmp_path)
    strings = [text for text in NASTY + strange_strings() + texts[:100] if "\u2581" not in text]
    ids_there = token_ids(ask, tmp_path, strings)
    assert [text for text, ids in zip(strings, ids_there, strict=True) if tokenizer(text)["input_ids"] != ids] == []
