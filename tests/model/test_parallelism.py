"""Two gloo ranks compute what one process computes: tensor parallel, pipeline and FSDP2 by the model's own plans.

Everything goes through Transformers' own `from_pretrained(distributed_config=...)`. One pair of processes runs every
case (starting them is the slow part) and leaves its numbers in files; the tests compare them with one process.
Gradient checkpointing, the fourth way to a larger model, is measured in bytes kept for the backward pass.
"""

import os
import re

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from tinygpt_hf import TinyGPTConfig, TinyGPTForCausalLM
from tinygpt_hf.model import conversion

DIALECTS = {
    "modern": {"num_key_value_heads": 2, "rms_norm_eps": 1e-3, "rope_parameters": {"rope_theta": 321.0}},
    "untied": {"num_key_value_heads": 2, "tie_word_embeddings": False, "attention_bias": True, "mlp_bias": True},
    "gpt2": conversion.DIALECTS["gpt2"],
}
WAYS = ["tp_size", "pp_size", "fsdp_size"]
V, LAYERS, WORLD, STEPS = 58, 3, 2, 3  # three layers on two stages: an uneven split


def make_model(fields: dict, **shape) -> TinyGPTForCausalLM:
    torch.manual_seed(0)
    small = {"vocab_size": V, "hidden_size": 48, "num_hidden_layers": LAYERS, "num_attention_heads": 4}
    model = TinyGPTForCausalLM(TinyGPTConfig(**small | {"max_position_embeddings": 64} | fields | shape))
    for parameter in model.parameters():  # biases and norms away from 0 and 1
        parameter.data += 0.2 * torch.randn_like(parameter)
    return model.eval()


def some_ids(batch: int = 2, length: int = 10) -> torch.Tensor:
    return torch.randint(0, V, (batch, length), generator=torch.Generator().manual_seed(3))


def padded(ids: torch.Tensor) -> dict:
    mask = torch.ones_like(ids)
    mask[0, :3] = 0
    return {"input_ids": ids, "attention_mask": mask, "position_ids": (mask.cumsum(-1) - 1).clamp_min(0)}


def numbers(model, rank: int = 0, world: int = 1, backward: bool = True) -> dict[str, torch.Tensor]:
    """What has to be the same on one process and on two: logits, greedy tokens, gradients, losses, trained weights."""
    whole = lambda tensor: tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor  # noqa: E731
    ids = some_ids()
    # made before any forward: after one, FSDP2 shows the whole of the parameters it keeps gathered
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    with torch.no_grad():
        found = {"logits": model(ids).logits, "padded": model(**padded(ids)).logits[1]}
    greedy = {"max_new_tokens": 8, "do_sample": False, "pad_token_id": 0}
    found["tokens"] = model.generate(ids[:, :4], **greedy)
    # behind padding without a cache: the library's pipeline measures the cache by its first layer, which later stages
    # do not fill, so that stock models too continue a padded prompt wrongly there
    behind_padding = {"attention_mask": padded(ids)["attention_mask"], "use_cache": backward}
    found["left padded"] = model.generate(ids, **behind_padding, **greedy)
    if not backward:
        return found
    mine = slice(rank * 2 // world, (rank + 1) * 2 // world)  # as many rows, and targets, on each rank
    losses = []
    for step in range(STEPS):
        loss = model(ids[mine], labels=ids[mine]).loss
        loss.backward()
        if step == 0:
            found |= {f"grad {name}": whole(p.grad) for name, p in model.named_parameters()}
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.detach())
    found["losses"] = torch.stack(losses)
    if mine != slice(0, 2):
        torch.distributed.all_reduce(found["losses"])
        found["losses"] /= world
    return found | {f"weight {name}": whole(p.detach()) for name, p in model.named_parameters()}


def work(rank: int, folder: str) -> None:
    """One of the two processes: every dialect, every way."""
    from transformers.distributed import DistributedConfig

    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(WORLD))
    torch.set_num_threads(1)
    store = f"file://{folder}/store"
    torch.distributed.init_process_group("gloo", init_method=store, rank=rank, world_size=WORLD)
    for dialect in DIALECTS:
        for way in WAYS:
            source = f"{folder}/{dialect}"
            model = AutoModelForCausalLM.from_pretrained(source, distributed_config=DistributedConfig(**{way: WORLD}))
            model.eval()
            local = sum((p.to_local() if hasattr(p, "to_local") else p).numel() for p in model.parameters())
            shard = (rank, WORLD) if way == "fsdp_size" else (0, 1)  # FSDP shards the batch too
            found = numbers(model, *shard, backward=way != "pp_size")
            if way != "pp_size":
                model.save_pretrained(f"{folder}/{dialect}-{way}-saved")
            found["local size"] = torch.tensor(local)
            found = {name: tensor.detach().clone().contiguous() for name, tensor in found.items()}
            save_file(found, f"{folder}/{dialect}-{way}-{rank}.safetensors")
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranks")
    for dialect, fields in DIALECTS.items():
        make_model(fields).save_pretrained(folder / dialect)
    torch.multiprocessing.spawn(work, (str(folder),), nprocs=WORLD)
    return folder


@pytest.fixture(scope="module")
def alone(folder):
    """dialect -> the numbers of one process."""
    return {dialect: numbers(AutoModelForCausalLM.from_pretrained(folder / dialect).eval()) for dialect in DIALECTS}


def ranks(folder, dialect: str, way: str) -> list[dict[str, torch.Tensor]]:
    return [load_file(f"{folder}/{dialect}-{way}-{rank}.safetensors") for rank in range(WORLD)]


def differ(one: torch.Tensor, two: torch.Tensor) -> float:
    return (one - two).abs().max().item() / max(1.0, two.abs().max().item())


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("dialect", DIALECTS)
def test_two_ranks_give_the_logits_and_the_greedy_tokens_of_one_process(folder, alone, dialect, way):
    for found in ranks(folder, dialect, way):
        for name in ("logits", "padded"):
            assert alone[dialect][name].std() > 0.1
            assert differ(found[name], alone[dialect][name]) < 1e-5
        for name in ("tokens", "left padded"):
            assert torch.equal(found[name], alone[dialect][name])


@pytest.mark.parametrize("way", ["tp_size", "fsdp_size"])
@pytest.mark.parametrize("dialect", DIALECTS)
def test_two_ranks_have_the_gradients_and_learn_the_weights_of_one_process(folder, alone, dialect, way):
    names = [name for name in alone[dialect] if name.startswith(("grad ", "weight ", "losses"))]
    assert len([name for name in names if "k_norm" in name]) == (0 if dialect == "gpt2" else 2 * LAYERS)
    assert alone[dialect]["losses"][-1] < alone[dialect]["losses"][0] - 0.1
    for found in ranks(folder, dialect, way):
        for name in names:
            assert differ(found[name], alone[dialect][name]) < 2e-5, name


@pytest.mark.parametrize("way", ["tp_size", "fsdp_size"])
@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_sharded_model_saves_the_folder_one_process_would(folder, alone, dialect, way):
    saved = AutoModelForCausalLM.from_pretrained(folder / f"{dialect}-{way}-saved")
    for name, parameter in saved.named_parameters():
        assert differ(parameter.detach(), alone[dialect][f"weight {name}"]) < 2e-5, name


@pytest.mark.parametrize("dialect", DIALECTS)
def test_each_rank_holds_its_share_only(folder, dialect):
    """By hand: tensor parallel halves the matrices, a stage has its layers, FSDP halves every parameter."""
    model = make_model(DIALECTS[dialect])
    sizes = {name: p.numel() for name, p in model.named_parameters()}
    whole, linear = sum(sizes.values()), 0
    for name, size in sizes.items():
        shared = "norm" in name or name.endswith(("o_proj.bias", "down_proj.bias")) or "embed_positions" in name
        linear += 0 if shared else size
    layer = sum(size for name, size in sizes.items() if ".layers.0." in name)
    ends = {name: size for name, size in sizes.items() if ".layers." not in name}
    embed, norm = ends["model.embed_tokens.weight"], sum(size for name, size in ends.items() if "model.norm" in name)
    positions, head = ends.get("model.embed_positions.weight", 0), ends.get("lm_head.weight", 0)
    first, last = (layer * (LAYERS // 2) + embed + positions, layer * (LAYERS - LAYERS // 2) + norm + positions)
    expected = {
        "tp_size": [whole - linear + linear // 2] * 2,
        "pp_size": [first, last + (head or embed)],
        "fsdp_size": [-(-whole // 2)] * 2,
    }
    for way, sizes_by_rank in expected.items():
        assert [int(found["local size"]) for found in ranks(folder, dialect, way)] == sizes_by_rank, way


@pytest.mark.parametrize("dialect", DIALECTS)
def test_each_plan_covers_the_model_and_names_nothing_else(dialect):
    """Tensor parallel shards every matrix but the position table; FSDP gathers the layers one by one, the ends for good."""
    model = make_model(DIALECTS[dialect])
    modules = {re.sub(r"\.\d+", ".*", name): part for name, part in model.named_modules()}
    matrices = {name for name, part in modules.items() if isinstance(part, (torch.nn.Linear, torch.nn.Embedding))}
    head_norms = {f"model.layers.*.self_attn.{name}_norm" for name in ("qk" if model.config.qk_norm else "")}
    assert set(model.tp_plan) == matrices - {"model.embed_positions"} | head_norms
    ends = {"model.norm": "keep_full_weight", "lm_head": "keep_full_weight"}
    freed = {"model.embed_tokens": "free_full_weight", "model.layers.*": "free_full_weight"}
    assert model.fsdp_plan == freed | ends


@pytest.mark.parametrize("dialect", DIALECTS)
def test_the_pipeline_plan_names_the_whole_road_in_order(dialect):
    """Walked module by module as the plan says, each fed by the names the plan gives it, the model is the model."""
    model, ids = make_model(DIALECTS[dialect]), some_ids()
    plan = model.config.base_model_pp_plan
    parts = [name for name, _ in model.model.named_children() if name != "rotary_emb"]
    assert list(plan) == parts
    assert model._pp_plan == {f"model.{name}": io for name, io in plan.items()} | {
        "lm_head": type(model)._pp_plan["lm_head"]
    }
    positions = torch.arange(ids.shape[1])[None]
    rotary = model.model.rotary_emb
    seen = torch.full((10, 10), torch.finfo(torch.float32).min).triu(1)[None, None]
    stream = {"input_ids": ids, "position_ids": positions, "attention_mask": seen}
    with torch.no_grad():
        for name, (takes, gives) in (plan | {"lm_head": type(model)._pp_plan["lm_head"]}).items():
            module = model.lm_head if name == "lm_head" else getattr(model.model, name)
            given = [stream[key] for key in takes]
            if name == "layers":
                angles = rotary(given[0], positions) if rotary else None
                for layer in module:
                    given[0] = layer(*given, position_embeddings=angles)
                result = given[0]
            else:
                result = module(*given)
            if name == "embed_positions":
                result = result + stream["inputs_embeds"]
            stream[gives[0]] = result
            if gives == ["inputs_embeds"]:
                stream["hidden_states"] = result
        expected = model(ids).logits
    assert differ(stream["logits"], expected) < 1e-5


# --- gradient checkpointing, measured


def kept_for_backward(model, ids: torch.Tensor) -> tuple[int, torch.Tensor]:
    """(bytes of the activations autograd holds when the forward pass has ended, loss): parameters are not counted."""
    known = {p.untyped_storage().data_ptr() for p in [*model.parameters(), *model.buffers()]}
    kept: dict[int, int] = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in known:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = model(ids, labels=ids, use_cache=False).loss
    return sum(kept.values()), loss


# floats a layer keeps per token, by hand: C width, I inner width, H and K heads of size D, T the tokens looked at
KEPT_BY_A_LAYER = {
    # norms: input, normalised, output and a scale, twice; q, k, v, of which q and k also normalised and turned;
    # a scale per head; attention weights; what the heads say; gate, silu of it, up, their product
    "modern": lambda C, I, H, K, D, T: 6 * C + 2 + (3 * H + 3 * K + K) * D + H + K + H * T + H * D + 4 * I,  # noqa: E741
    # norms: input, output and two scales, twice; q, k, v; attention weights; what the heads say; five stages of gelu_new
    "gpt2": lambda C, I, H, K, D, T: 4 * C + 4 + 3 * H * D + H * T + H * D + 5 * I,  # noqa: E741
}


@pytest.mark.parametrize("dialect", KEPT_BY_A_LAYER)
def test_checkpointing_keeps_one_hidden_state_per_layer(dialect):
    """A layer's share is the difference of two depths. Plain, it keeps what is counted above; checkpointed, its input
    (B, T, C) alone: 25.5 times less here in the default dialect and 30.75 times less in GPT-2's. At 12 layers that is
    306 hidden states against 12 and, while one layer is computed again, its own 25.5."""
    ids = some_ids(4, 32)
    share, gradients = {}, {}
    for checkpointed in (False, True):
        kept = {}
        for depth in (4, 12):
            model = make_model(DIALECTS[dialect], num_hidden_layers=depth).train()
            model.set_attn_implementation("eager")
            if checkpointed:
                model.gradient_checkpointing_enable()
            kept[depth], loss = kept_for_backward(model, ids)
            loss.backward()
            gradients[checkpointed, depth] = model.model.layers[0].mlp.up_proj.weight.grad
        share[checkpointed] = (kept[12] - kept[4]) / 8
    c = model.config
    floats = KEPT_BY_A_LAYER[dialect](
        c.hidden_size, c.intermediate_size, c.num_attention_heads, c.num_key_value_heads, c.head_dim, ids.shape[1]
    )
    assert share[True] == 4 * ids.numel() * c.hidden_size
    assert share[False] == pytest.approx(4 * ids.numel() * floats, rel=0.01)
    assert share[False] / share[True] == pytest.approx({"modern": 25.5, "gpt2": 30.75}[dialect], rel=0.01)
    for depth in (4, 12):
        assert torch.allclose(gradients[True, depth], gradients[False, depth], atol=1e-7)
