"""Two gloo ranks compute what one process computes: tensor parallel, pipeline and FSDP2 by the model's own plans.

Everything goes through Transformers' own `from_pretrained(distributed_config=...)`. One pair of processes runs every
case (starting them is the slow part) and leaves its numbers in files; the tests compare them with one process.
Gradient checkpointing, the fourth way to a larger model, is measured in bytes kept for the backward pass.
"""

import os

import pytest
import torch
from safetensors.torch import load_file, save_file
from test_model import DIALECTS, MODERN_DIALECT, both_dialects, make_model, some_ids
from transformers import AutoModelForCausalLM

WAYS = ["tp_size", "pp_size", "fsdp_size"]
TRAINED_WAYS = ["tp_size", "fsdp_size"]
LAYERS, WORLD, STEPS = 3, 2, 3  # three layers on two stages: an uneven split
# one with all that can be split, untied; and one with tied embeddings
MODELS = DIALECTS | {
    "modern": MODERN_DIALECT | {"tie_word_embeddings": False, "attention_bias": True, "mlp_bias": True}
}
SHAPE = {"num_hidden_layers": LAYERS, "vocab_size": 58}  # tensor parallel halves the vocabulary


def padded(ids: torch.Tensor) -> dict:
    mask = torch.ones_like(ids)
    mask[0, :3] = 0
    return {"input_ids": ids, "attention_mask": mask, "position_ids": (mask.cumsum(-1) - 1).clamp_min(0)}


def full(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor


def numbers(model, rank: int = 0, world: int = 1, backward: bool = True) -> dict[str, torch.Tensor]:
    """Compute what must be equal on one and on two processes: logits, greedy tokens, gradients, losses, trained weights."""
    ids = some_ids() % SHAPE["vocab_size"]
    # made before any forward: after one, FSDP2 shows the full parameters it keeps gathered
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    with torch.no_grad():
        results = {"logits": model(ids).logits, "padded": model(**padded(ids)).logits[1]}
    greedy = {"max_new_tokens": 8, "do_sample": False, "pad_token_id": 0}
    results["tokens"] = model.generate(ids[:, :4], **greedy)
    # behind padding without a cache: the library's pipeline measures the cache by its first layer, which later stages
    # do not fill, so that stock models too continue a padded prompt wrongly there
    behind_padding = {"attention_mask": padded(ids)["attention_mask"], "use_cache": backward}
    results["left padded"] = model.generate(ids, **behind_padding, **greedy)
    if not backward:
        return results
    mine = slice(rank * 2 // world, (rank + 1) * 2 // world)  # as many rows, and targets, on each rank
    losses = []
    for step in range(STEPS):
        loss = model(ids[mine], labels=ids[mine]).loss
        loss.backward()
        if step == 0:
            results |= {f"grad {name}": full(p.grad) for name, p in model.named_parameters()}
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.detach())
    results["losses"] = torch.stack(losses)
    if mine != slice(0, 2):
        torch.distributed.all_reduce(results["losses"])
        results["losses"] /= world
    return results | {f"weight {name}": full(p.detach()) for name, p in model.named_parameters()}


def work(rank: int, folder: str) -> None:
    """Run one of the two processes, for all models and kinds of parallelism."""
    from transformers.distributed import DistributedConfig

    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(WORLD))
    torch.set_num_threads(1)
    store = f"file://{folder}/store"
    torch.distributed.init_process_group("gloo", init_method=store, rank=rank, world_size=WORLD)
    for name in MODELS:
        for way in WAYS:
            source, config = f"{folder}/{name}", DistributedConfig(**{way: WORLD})
            model = AutoModelForCausalLM.from_pretrained(source, distributed_config=config).eval()
            local = sum((p.to_local() if hasattr(p, "to_local") else p).numel() for p in model.parameters())
            shard = (rank, WORLD) if way == "fsdp_size" else (0, 1)  # FSDP shards the batch too
            results = numbers(model, *shard, backward=way != "pp_size")
            if way != "pp_size":
                model.save_pretrained(f"{folder}/{name}-{way}-saved")
            results["local size"] = torch.tensor(local)
            results = {key: tensor.detach().clone().contiguous() for key, tensor in results.items()}
            save_file(results, f"{folder}/{name}-{way}-{rank}.safetensors")
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranks")
    for name, fields in MODELS.items():
        make_model(fields | SHAPE).save_pretrained(folder / name)
    torch.multiprocessing.spawn(work, (str(folder),), nprocs=WORLD)
    return folder


@pytest.fixture(scope="module", params=MODELS)
def name(request) -> str:
    return request.param


@pytest.fixture(scope="module")
def alone(folder, name) -> dict[str, torch.Tensor]:
    """Return the results of a single process."""
    return numbers(AutoModelForCausalLM.from_pretrained(folder / name).eval())


def ranks(folder, name: str, way: str) -> list[dict[str, torch.Tensor]]:
    return [load_file(f"{folder}/{name}-{way}-{rank}.safetensors") for rank in range(WORLD)]


def differ(one: torch.Tensor, two: torch.Tensor) -> float:
    return (one - two).abs().max().item() / max(1.0, two.abs().max().item())


@pytest.mark.parametrize("way", WAYS)
def test_two_ranks_give_the_logits_and_the_greedy_tokens_of_one_process(folder, alone, name, way):
    size = sum(value.numel() for key, value in alone.items() if key.startswith("weight "))
    for results in ranks(folder, name, way):
        for key in ("logits", "padded"):
            assert alone[key].std() > 0.1 and differ(results[key], alone[key]) < 1e-5
        for key in ("tokens", "left padded"):
            assert torch.equal(results[key], alone[key])
        assert results["local size"] < 0.75 * size  # a rank holds its share only


@pytest.mark.parametrize("way", TRAINED_WAYS)
def test_two_ranks_have_the_gradients_and_learn_and_save_the_weights_of_one_process(folder, alone, name, way):
    keys = [key for key in alone if key.startswith(("grad ", "weight ", "losses"))]
    assert alone["losses"][-1] < alone["losses"][0] - 0.1
    for results in ranks(folder, name, way):
        for key in keys:
            assert differ(results[key], alone[key]) < 2e-5, key
    saved = AutoModelForCausalLM.from_pretrained(folder / f"{name}-{way}-saved")
    for key, parameter in saved.named_parameters():
        assert differ(parameter.detach(), alone[f"weight {key}"]) < 2e-5, key


# --- gradient checkpointing, measured


def kept_for_backward(model, ids: torch.Tensor) -> tuple[int, torch.Tensor]:
    """Return (bytes of the activations autograd holds when the forward pass has ended, loss); parameters are not counted."""
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


@both_dialects
def test_checkpointing_keeps_one_hidden_state_per_layer(dialect):
    """Compare two depths: a checkpointed layer keeps only its input (B, T, C), 15 times less than a plain one."""
    ids, share, gradients = some_ids(4, 32), {}, {}
    for checkpointed in (False, True):
        kept = {}
        for depth in (2, 6):
            model = make_model(DIALECTS[dialect] | {"num_hidden_layers": depth}).train()
            if checkpointed:
                model.gradient_checkpointing_enable()
            kept[depth], loss = kept_for_backward(model, ids)
            loss.backward()
            gradients[checkpointed, depth] = model.model.layers[0].mlp.up_proj.weight.grad
        share[checkpointed] = (kept[6] - kept[2]) / 4
    assert share[True] == 4 * ids.numel() * model.config.hidden_size
    assert share[False] > 15 * share[True]
    for depth in (2, 6):
        assert torch.allclose(gradients[True, depth], gradients[False, depth], atol=1e-7)
