"""Compile the layers of a run where that pays: one layer's code is compiled, and all layers share it.

`auto` decides once, at step DECIDED: a run with little left to do goes on as it is; another compiles, times a few gradients both
ways, and keeps what is faster. The decision is an event (events.py), so a run that goes on after a kill takes the same steps with
the same kernels. Evaluations and samples, whose shapes change, are not compiled. What was compiled is kept for the next run.
"""

import functools
import math
import os
import time
from collections.abc import Callable
from pathlib import Path

import torch

from tinygpt_hf import storage
from tinygpt_hf.training import events, precision, step

COMPILE = "compile"  # the event
DECIDED = 8  # steps; the clock of a budget looks at the pace later
FEWEST = 3  # steps whose time is known
# Seconds that must be left, where a layer was compiled here before, and where it was not: measured (float32, AVX2) it takes 28 to
# 41 seconds of a core, 4 from the cache, and saves a tenth of a gradient.
LONG = {True: 240, False: 1800}
ROUNDS = 3  # gradients that are timed each way
WORTH = 0.95  # of a plain gradient's time, that a compiled one may take
FAILED = 1_000_000  # told from a share in thousandths


def cache_folder() -> Path:
    """Where what was compiled is kept for the next run, unless TORCHINDUCTOR_CACHE_DIR says where."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(Path(base) / "tinygpt_hf" / "compiled")))


def use(layers: list[torch.nn.Module], compiled: Callable | None) -> None:
    """Let layers that train call what was compiled of them from now on, or None: what they are."""

    def forward(layer, *args, **kwargs):
        return (compiled if layer.training else type(layer).forward)(layer, *args, **kwargs)

    for layer in layers:
        layer.__dict__.pop("forward", None)
        if compiled:
            layer.forward = functools.partial(forward, layer)


def compiled_layer(layer: torch.nn.Module) -> Callable:
    """The forward pass of every layer of this kind, to be compiled when it is first called, for each shape once."""
    return torch.compile(type(layer).forward, fullgraph=True, dynamic=False)


class Compilation:
    """Whether the layers of a run are compiled now. Every process calls every method."""

    def __init__(self, run):
        self._run, self._layers = run, run.raw.model.layers
        self._compiled, self._has_tried = None, False
        wanted = run.training.torch_compile
        known = (event for event in reversed(events.known(run)) if event["event"] == COMPILE)
        self._event = next(known, None) if wanted == "auto" else {"step": 0, "compiled": wanted}
        kind = [run.facts["model"], run.state.micro_batch, run.data.block_size, run.accelerator.mixed_precision]
        kind += [run.accelerator.device.type, run.training.gradient_checkpointing, run.facts["lora"], torch.__version__]
        self._mark = cache_folder() / f"{storage.value_hash(kind)[:16]}.layer"  # is there once it was compiled

    def proposal(self) -> int:
        """What to do before this step: 0 nothing, 1 decide against it, 2 try."""
        clock = self._run.clock
        if self._event or self._run.state.step < DECIDED or clock.steps_timed < FEWEST:
            return 0
        return 2 if clock.left >= LONG[self._mark.exists()] else 1

    def decide(self, proposal: int) -> None:
        """Keep to what was decided; where all processes agreed on a proposal, decide, and record it."""
        run, event = self._run, self._event
        if proposal:
            share = run.interruption.agreed(self._measured())[0] / 1000 if proposal == 2 else math.inf
            values = {"compiled": share <= WORTH} | ({"share": share} if share < FAILED / 1000 else {})
            self._event = events.record(run, COMPILE, **values)
            use(self._layers, self._compiled if share <= WORTH else None)
            run.clock.forget_pace()
        elif event and event["compiled"] and event["step"] <= run.state.step and not self._has_tried:
            self._attempt(self._gradient)

    def _measured(self) -> int:
        """The time of a compiled gradient in thousandths of a plain one's."""
        times: dict[bool, list[float]] = {True: [], False: []}

        def measure() -> None:
            self._gradient()
            for _ in range(ROUNDS):
                for compiled in times:
                    use(self._layers, self._compiled if compiled else None)
                    times[compiled].append(self._gradient())

        return round(1000 * min(times[True]) / min(times[False])) if self._attempt(measure) else FAILED

    def _attempt(self, work: Callable[[], object]) -> bool:
        """Compile, and do the work that needs it; where that fails say why, and go on without."""
        run, begun, self._has_tried = self._run, time.perf_counter(), True
        run.meter.pause()
        try:
            self._compiled = compiled_layer(self._layers[0])
            use(self._layers, self._compiled)
            work()
            run.console.say(
                f"compiled a layer for all in {time.perf_counter() - begun:.0f} s (kept in {self._mark.parent})"
            )
            self._mark.parent.mkdir(parents=True, exist_ok=True)
            self._mark.touch()
            return True
        except Exception as error:  # whatever stands in the way: no run ends for it
            use(self._layers, None)
            why = str(error).strip().partition("\n")[0] or type(error).__name__
            run.console.say(f"note: nothing is compiled: {why}")
            return False
        finally:
            run.meter.go_on()

    def _gradient(self) -> float:
        """Seconds that the gradient of this step takes; it is computed again when the step is taken."""
        run, begun = self._run, time.perf_counter()
        loss, _ = step.gradients(run, run.state.micro_batch, synced=precision.is_sharded(run.accelerator))
        float(loss)  # waits for the device
        return time.perf_counter() - begun
