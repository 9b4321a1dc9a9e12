"""The optimizer: parameter groups, Muon and AdamW in one, and learning rate schedules as pure functions of the step.

Muon (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon/) orthogonalizes the update of each hidden matrix
approximately; embeddings, the head, norms and biases are trained by AdamW. On two cores a Muon step takes a third longer, but
far fewer steps reach the same loss as AdamW (see benchmarks/).
"""

import math

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch.distributed.tensor import DTensor, distribute_tensor

from tinygpt_hf.settings.arguments import TrainingArguments

# Quintic Newton-Schulz coefficients, as in torch.optim.Muon: singular values end between about 0.7 and 1.2 in five rounds.
NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
NEWTON_SCHULZ_STEPS = 5


def parameter_groups(model: torch.nn.Module, training: TrainingArguments) -> list[dict]:
    """Return the optimizer's parameter groups. Each trainable parameter is in exactly one.

    muon: matrices of the hidden layers. decay: other matrices except embeddings (an untied head; with `optim=adamw` all).
    plain, without weight decay: embeddings, norms, biases. Tied embeddings count once, as an embedding. LoRA matrices are
    plain too: only the product of two acts, so an orthogonal update of one has no meaning, and B starts at zero.
    """
    embeddings = {id(m.weight) for m in model.modules() if isinstance(m, torch.nn.Embedding)}
    layers = {id(p) for name, p in model.named_parameters() if ".layers." in name or name.startswith("layers.")}
    chosen: dict[str, list[tuple[str, torch.nn.Parameter]]] = {"muon": [], "decay": [], "plain": []}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        if parameter.ndim == 2 and id(parameter) not in embeddings and not training.lora_r:
            is_muon = training.optim == "muon" and id(parameter) in layers
            chosen["muon" if is_muon else "decay"].append((name, parameter))
        else:
            chosen["plain"].append((name, parameter))
    return [
        {
            "params": [parameter for _, parameter in members],
            "names": [name for name, _ in members],
            "muon": kind == "muon",
            "peak_lr": training.muon_learning_rate if kind == "muon" else training.learning_rate,
            "lr": training.muon_learning_rate if kind == "muon" else training.learning_rate,
            "momentum": training.muon_momentum,
            "weight_decay": 0.0 if kind == "plain" else training.weight_decay,
        }
        for kind, members in chosen.items()
        if members
    ]


class MuonAdamW(torch.optim.AdamW):
    """Muon on groups with `muon=True` and AdamW on the others, in one optimizer with one state and one GradScaler.

    The Muon part computes the same as `torch.optim.Muon` (Nesterov momentum, update scaled by sqrt(max(1, rows/columns)),
    decoupled weight decay). Newton-Schulz runs in `compute_dtype`, batched over matrices of equal shape.
    """

    param_groups: list[dict]

    def __init__(
        self, groups: list[dict], betas: tuple[float, float], eps: float, compute_dtype: torch.dtype = torch.bfloat16
    ):
        self.compute_dtype = compute_dtype
        device = groups[0]["params"][0].device
        super().__init__(groups, lr=0.0, betas=betas, eps=eps, fused=device.type in ("cpu", "cuda"))
        self._step_supports_amp_scaling = False  # Muon needs unscaled gradients

    @torch.no_grad()
    def step(self, closure=None):
        """Update every parameter that has a gradient."""
        groups = self.param_groups
        for group in groups:
            if group["muon"]:
                self._muon(group)
        self.param_groups = [group for group in groups if not group["muon"]]
        try:
            return super().step(closure)
        finally:
            self.param_groups = groups

    def _muon(self, group: dict) -> None:
        by_shape: dict[torch.Size, list[torch.nn.Parameter]] = {}
        for parameter in group["params"]:
            if parameter.grad is not None:
                by_shape.setdefault(parameter.shape, []).append(parameter)
        momentum = group["momentum"]
        for shape, parameters in by_shape.items():
            updates = []
            for parameter in parameters:
                state = self.state[parameter]
                if not state:
                    state["momentum_buffer"] = torch.zeros_like(parameter.grad)
                buffer = state["momentum_buffer"]
                buffer.lerp_(parameter.grad, 1 - momentum)
                updates.append(parameter.grad.lerp(buffer, momentum))
            ratio = math.sqrt(max(1.0, shape[0] / shape[1]))
            torch._foreach_mul_(parameters, 1 - group["lr"] * group["weight_decay"])
            torch._foreach_add_(parameters, self._orthogonalized(updates), alpha=-group["lr"] * ratio)

    def _orthogonalized(self, updates: list[torch.Tensor]) -> list[torch.Tensor]:
        """Orthogonalize matrices of equal shape.

        Matrices sharded by FSDP2 are gathered. Each process orthogonalizes a share of them, the results are gathered, and
        each process keeps its shard of every matrix.
        """
        if not isinstance(updates[0], DTensor):
            return list(orthogonalize(torch.stack(updates), self.compute_dtype).to(updates[0].dtype).unbind())
        rank, processes = dist.get_rank(), dist.get_world_size()
        share = -(-len(updates) // processes)
        whole = torch.stack([update.full_tensor() for update in updates])  # (N, rows, columns)
        whole = F.pad(whole, (0, 0, 0, 0, 0, share * processes - len(updates)))
        own = orthogonalize(whole[rank * share : (rank + 1) * share], self.compute_dtype).to(whole.dtype)
        dist.all_gather_into_tensor(whole, own.contiguous())
        mesh, placements = updates[0].device_mesh, updates[0].placements
        # src_data_rank=None: no communication, since every process has the full matrices
        matrices = whole[: len(updates)].unbind()
        return [distribute_tensor(matrix, mesh, placements, src_data_rank=None) for matrix in matrices]


def orthogonalize(matrices: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Orthogonalize matrices (N, rows, columns) approximately, by Newton-Schulz iterations in `dtype`."""
    a, b, c = NEWTON_SCHULZ
    x = matrices.to(dtype)
    tall = x.shape[-2] > x.shape[-1]
    if tall:
        x = x.mT
    x = x / x.norm(dim=(-2, -1), keepdim=True).clamp(min=1e-7)
    for _ in range(NEWTON_SCHULZ_STEPS):
        gram = torch.bmm(x, x.mT)
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if tall else x


def make_optimizer(model: torch.nn.Module, training: TrainingArguments, precision: str) -> MuonAdamW:
    """Make the optimizer of a run. With `precision` "no", Muon computes in float32 too, else in bfloat16."""
    return MuonAdamW(
        parameter_groups(model, training),
        betas=(training.adam_beta1, training.adam_beta2),
        eps=training.adam_epsilon,
        # in a float32 run bfloat16 would enlarge rounding differences
        compute_dtype=torch.float32 if precision == "no" else torch.bfloat16,
    )


def learning_rate_factor(
    training: TrainingArguments, step: int, max_steps: int, decay_steps: int | None = None
) -> float:
    """Return the learning rate of step `step` (0 .. max_steps-1) as a share of the peak.

    It rises linearly over `warmup_steps`, above zero from the first step. Then `cosine` and `linear` decay to
    `min_learning_rate_ratio`, `warmup_stable_decay` stays at 1 and decays linearly over the last `decay_steps` (default: a
    fifth of the steps), and `constant` stays at 1.
    """
    schedule, warmup_steps, minimum = (
        training.lr_scheduler_type,
        training.warmup_steps,
        training.min_learning_rate_ratio,
    )
    if step < warmup_steps:
        return (step + 1) / (warmup_steps + 1)
    if schedule == "constant":
        return 1.0
    if schedule == "warmup_stable_decay":
        decay = decay_steps if decay_steps is not None else max(1, max_steps // 5)
        left = (max_steps - step) / max(decay, 1)
        return minimum + (1 - minimum) * min(1.0, max(0.0, left))
    progress = (step - warmup_steps) / max(1, max_steps - warmup_steps)
    shape = 1 - progress if schedule == "linear" else 0.5 * (1 + math.cos(math.pi * progress))
    return minimum + (1 - minimum) * max(0.0, shape)


def set_learning_rate(optimizer, factor: float) -> None:
    """Set every group to its peak learning rate times `factor`."""
    for group in optimizer.param_groups:
        group["lr"] = group["peak_lr"] * factor
