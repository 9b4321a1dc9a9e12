"""What a run needs, against what a step is seen to keep; and that what cannot fit is refused before anything is made or read."""

from types import SimpleNamespace

import psutil
import pytest
import torch

from tinygpt_hf import TinyGPTConfig, TinyGPTForCausalLM, train
from tinygpt_hf.errors import UsageError
from tinygpt_hf.planning import memory
from tinygpt_hf.planning.memory import Needs, available_memory, check_disk, check_memory, estimate_needs, needs_of_shape
from tinygpt_hf.settings.arguments import DataArguments, ModelArguments, TokenizerArguments, TrainingArguments
from tinygpt_hf.settings.defaults import filled
from tinygpt_hf.training import run as run_module
from tinygpt_hf.training.checkpoint import optimizer_tensors
from tinygpt_hf.training.optimizer import make_optimizer, parameter_groups

SHAPES = [
    {"hidden_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4, "vocab_size": 300},
    {"hidden_size": 96, "num_hidden_layers": 2, "num_attention_heads": 6, "num_key_value_heads": 2, "vocab_size": 2000},
    {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 300, "tie_word_embeddings": False,
     "position_embedding_type": "learned", "norm_type": "layernorm", "mlp_type": "plain", "qk_norm": False,
     "attention_bias": True, "mlp_bias": True},
]  # fmt: skip


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("settings", [{}, {"optim": "adamw"}, {"gradient_checkpointing": True}])
def test_memory_is_what_a_step_is_seen_to_keep(shape, settings):
    _, training = filled(ModelArguments(), TrainingArguments(per_device_train_batch_size=4, **settings))
    model = TinyGPTForCausalLM(TinyGPTConfig(**shape, max_position_embeddings=64)).train()
    if training.gradient_checkpointing:
        model.gradient_checkpointing_enable()
    optimizer = make_optimizer(model, training, "no")
    needs = estimate_needs(model.config, optimizer.param_groups, training, block_size=64)

    kept = {}  # storages the backward pass will read again, weights left out

    def keep(tensor):
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    ids = torch.arange(4 * 64).view(4, 64) % 300
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = model(ids, shift_labels=ids, num_items_in_batch=256, skip_logits=True, use_cache=False).loss
    for parameter in model.parameters():
        kept.pop(parameter.untyped_storage().data_ptr(), None)
    loss.backward()
    optimizer.step()

    size = sum(p.numel() for p in model.parameters()) * 4
    memory = sum(t.numel() * 4 for t in optimizer_tensors(optimizer).values() if t.ndim)
    assert needs.weights == size and needs.fixed == 2 * size + memory and needs.checkpoint == size + memory
    if not training.gradient_checkpointing:  # then most is made again during the backward pass
        assert 0.6 < needs.activations / sum(kept.values()) < 1.6
        assert 4 * needs.row < sum(kept.values())  # what is certain of one row of four
    else:
        assert needs.activations > sum(kept.values())


def test_shards_divide_what_is_fixed():
    model = TinyGPTForCausalLM(TinyGPTConfig(**SHAPES[0]))
    _, training = filled(ModelArguments(), TrainingArguments(optim="adamw"))
    groups = make_optimizer(model, training, "no").param_groups
    whole, half = (estimate_needs(model.config, groups, training, 64, shards) for shards in (1, 2))
    assert (
        half.fixed == whole.fixed // 2 and half.checkpoint == whole.checkpoint and half.activations == whole.activations
    )


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("settings", [{}, {"optim": "adamw"}, {"gradient_checkpointing": True}, {"lora_r": 4}])
def test_a_shape_needs_what_its_model_does(shape, settings):
    _, training = filled(ModelArguments(), TrainingArguments(**settings))
    config = TinyGPTConfig(**{**shape, "num_hidden_layers": 5}, max_position_embeddings=64)
    from_shape = needs_of_shape(config, training, 64, lambda net: parameter_groups(net, training), shards=1)
    model = TinyGPTForCausalLM(config)
    frozen = model.num_parameters() if "lora_r" in settings else 0
    groups = [] if frozen else parameter_groups(model, training)
    exact = estimate_needs(config, groups, training, 64, frozen=frozen)
    assert from_shape == exact and config.num_hidden_layers == 5


NEEDS = Needs(weights=100, fixed=400, activations=8000, checkpoint=300, row=50)
TRAINING = TrainingArguments(per_device_train_batch_size=8)


@pytest.mark.parametrize(
    ("free", "swap", "processes", "answer"),
    [
        (10**6, 0, 1, None),
        (1400, 0, 1, None),  # with one row of a micro-batch, which is 1000
        (1399, 0, 1, "1.4 KiB of memory are needed"),
        (449, 1, 1, "it may swap, or run out"),
        (
            449,
            0,
            1,
            "take 400 bytes, and one row at least 50 bytes .expected at most 449 bytes, the memory that is free",
        ),
        (440, 9, 1, "at most 449 bytes, the memory and swap that is free"),
        (899, 0, 2, "take 800 bytes, and one row at least 100 bytes in 2 processes"),
        (900, 0, 2, "it may swap, or run out"),
    ],
)
def test_what_surely_cannot_fit_is_refused_and_what_may_not_is_said(monkeypatch, free, swap, processes, answer):
    monkeypatch.setattr(memory, "available_memory", lambda device: (free, swap))
    if free + swap < processes * 450:
        with pytest.raises(UsageError, match=answer):
            check_memory(NEEDS, TRAINING, "cpu", processes)
    else:
        note = check_memory(NEEDS, TRAINING, "cpu", processes)
        assert note == answer or answer in note


def test_checkpoints_need_room_on_the_disk(tmp_path, monkeypatch):
    free = SimpleNamespace(free=3 * 300 + 3 * 100 - 1)
    monkeypatch.setattr(memory.shutil, "disk_usage", lambda folder: free if folder.is_dir() else None)
    for folder in (tmp_path, tmp_path / "not" / "yet"):
        check_disk(NEEDS, folder, 2)
        with pytest.raises(UsageError, match="the checkpoints take 1.2 KiB .*1.2 KiB, which are free on the disk"):
            check_disk(NEEDS, folder, 3)
        with pytest.raises(UsageError, match="or a smaller --save_total_limit, --keep_snapshots or model"):
            check_disk(NEEDS, folder, 2, snapshots=3)
    (tmp_path / "checkpoint-1").mkdir()
    (tmp_path / "checkpoint-1" / "model.safetensors").write_bytes(b"x" * 100)  # is there already, and will be replaced
    check_disk(NEEDS, tmp_path, 3)


def groups(root, files: dict):
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(str(text))
    return available_memory("cpu", root)[0]


V2, V1 = "sys/fs/cgroup", "sys/fs/cgroup/memory"
CACHE = "anon 5\ninactive_file 30\nactive_file 4\n"


@pytest.mark.parametrize(
    ("files", "left"),
    [
        ({"proc/self/cgroup": "0::/\n", f"{V2}/memory.max": 1000, f"{V2}/memory.current": 400, f"{V2}/memory.stat": CACHE}, 634),
        ({"proc/self/cgroup": "0::/\n", f"{V2}/memory.max": 1000, f"{V2}/memory.current": 1100, f"{V2}/memory.stat": ""}, 0),
        ({"proc/self/cgroup": "0::/job/step\n",  # the tightest of those around it
          f"{V2}/job/step/memory.max": "max", f"{V2}/job/step/memory.current": 1, f"{V2}/job/step/memory.stat": CACHE,
          f"{V2}/job/memory.max": 700, f"{V2}/job/memory.current": 100, f"{V2}/job/memory.stat": CACHE}, 634),
        ({"proc/self/cgroup": "9:cpu:/\n4:memory:/a/b\n0::/\n",
          f"{V1}/a/b/memory.limit_in_bytes": 2**63 - 4096, f"{V1}/a/b/memory.usage_in_bytes": 9, f"{V1}/a/b/memory.stat": "",
          f"{V1}/a/memory.limit_in_bytes": 50, f"{V1}/a/memory.usage_in_bytes": 45,
          f"{V1}/a/memory.stat": "total_inactive_file 3\n"}, 8),
        ({"proc/self/cgroup": "4:memory:/of/the/host\n",  # a container sees its own as the root
          f"{V1}/memory.limit_in_bytes": 60, f"{V1}/memory.usage_in_bytes": 10, f"{V1}/memory.stat": ""}, 50),
    ],
)  # fmt: skip
def test_the_limit_of_a_control_group_counts_and_cached_files_do_not(tmp_path, files, left):
    assert groups(tmp_path, files) == left


def test_without_control_groups_it_is_the_memory_of_the_machine(tmp_path, monkeypatch):
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=77))
    monkeypatch.setattr(psutil, "swap_memory", lambda: SimpleNamespace(free=5))
    assert available_memory("cpu", tmp_path) == (77, 5)
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/cgroup").write_text("0::/gone\n")
    assert available_memory("cpu", tmp_path) == (77, 5)


def test_of_a_gpu_the_driver_is_asked(monkeypatch):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (123, 456))
    assert available_memory("cuda") == (123, 0)
    with pytest.raises(UsageError, match="at most 123 bytes, the GPU memory that is free"):
        check_memory(NEEDS, TRAINING, "cuda")


TOO_LARGE = [
    (
        {"num_hidden_layers": 96, "hidden_size": 32768, "num_attention_heads": 256},
        {},
        {},
        "weights, gradients and optimizer take 13",
    ),
    ({"num_hidden_layers": 10**12}, {}, {}, "optimizer take"),
    ({"hidden_size": 2**40, "num_attention_heads": 2**20}, {}, {}, "a matrix of this model alone"),
    (
        {"hidden_size": 64, "num_hidden_layers": 1},
        {"block_size": 2**24},
        {"vocab_size": 10**6},
        "one row at least 32.0 GiB",
    ),
    ({"hidden_size": 64, "position_embedding_type": "learned"}, {"block_size": 10**12}, {}, "optimizer take"),
]


@pytest.mark.parametrize(("shape", "data", "tokenizer", "words"), TOO_LARGE)
def test_train_refuses_it_before_a_weight_is_made_or_a_text_read(tmp_path, monkeypatch, shape, data, tokenizer, words):
    monkeypatch.setattr(run_module, "build_model", None)
    monkeypatch.setattr(run_module, "prepare_text", None)
    with pytest.raises(UsageError, match=words):
        train(
            ModelArguments(**shape),
            DataArguments(train_file=tmp_path / "none.txt", **data),
            TokenizerArguments(**tokenizer),
            TrainingArguments(output_dir=tmp_path / "run", device="cpu"),
        )
    assert list(tmp_path.iterdir()) == []
