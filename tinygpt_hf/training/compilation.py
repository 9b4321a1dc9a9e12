"""Compile the decoder layers of a run with torch.compile when that saves time. All layers share the code of one.

`auto` decides once, at step DECISION_STEP. A run with little time left stays uncompiled. Another one compiles, times a few
gradients both ways, and keeps the faster. The decision is an event (events.py), so a resumed run uses the same kernels at the
same steps. Evaluations and samples are not compiled, since their shapes change. Compiled code is cached for later runs.
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

COMPILE = "compile"  # name of the event
DECISION_STEP = 8  # before clock.CHECKED, which needs the final step times
MIN_TIMED_STEPS = 3
# Seconds that must be left, with this layer in the cache (True) and without. Measured in float32 with AVX2: compiling takes 28
# to 41 seconds on one core, 4 from the cache, and saves a tenth of a gradient.
MIN_SECONDS_LEFT = {True: 240, False: 1800}
ROUNDS = 3  # gradients timed each way
MAX_SHARE = 0.95  # of a plain gradient's time, for a compiled one to be kept
FAILED = 1_000_000  # in place of a share in thousandths


def cache_folder() -> Path:
    """Return the cache folder for compiled code; TORCHINDUCTOR_CACHE_DIR overrides the default and is set if it is not."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(Path(base) / "tinygpt_hf" / "compiled")))


def set_forward(layers: list[torch.nn.Module], compiled: Callable | None) -> None:
    """Make layers call `compiled` in training mode; None restores their own forward pass."""

    def forward(layer, *args, **kwargs):
        return (compiled if layer.training else type(layer).forward)(layer, *args, **kwargs)

    for layer in layers:
        layer.__dict__.pop("forward", None)
        if compiled:
            layer.forward = functools.partial(forward, layer)


def compiled_layer(layer: torch.nn.Module) -> Callable:
    """Return the compiled forward pass of the layer's class. It is compiled at the first call with each shape."""
    return torch.compile(type(layer).forward, fullgraph=True, dynamic=False)


class Compilation:
    """The decision of a run whether its layers are compiled. Every process calls every method."""

    def __init__(self, run):
        self._run, self._layers = run, run.raw.model.layers
        self._compiled, self._has_tried = None, False
        wanted = run.training.torch_compile
        known = (event for event in reversed(events.known(run)) if event["event"] == COMPILE)
        self._event = next(known, None) if wanted == "auto" else {"step": 0, "compiled": wanted}
        kind = [run.facts["model"], run.state.micro_batch, run.data.block_size, run.accelerator.mixed_precision]
        kind += [run.accelerator.device.type, run.training.gradient_checkpointing, run.facts["lora"], torch.__version__]
        self._cache_marker = cache_folder() / f"{storage.value_hash(kind)[:16]}.layer"  # exists once it was compiled

    def proposal(self) -> int:
        """Return what this process proposes before the next step: 0 nothing, 1 not to compile, 2 to compile and measure."""
        clock = self._run.clock
        if self._event or self._run.state.step < DECISION_STEP or clock.steps_timed < MIN_TIMED_STEPS:
            return 0
        return 2 if clock.seconds_left >= MIN_SECONDS_LEFT[self._cache_marker.exists()] else 1

    def decide(self, proposal: int) -> None:
        """Decide and record what all processes proposed; without a proposal, apply the decision made before."""
        run, event = self._run, self._event
        if proposal:
            share = run.interruption.agreed(self._measure_share())[0] / 1000 if proposal == 2 else math.inf
            values = {"compiled": share <= MAX_SHARE} | ({"share": share} if share < FAILED / 1000 else {})
            self._event = events.record(run, COMPILE, **values)
            set_forward(self._layers, self._compiled if share <= MAX_SHARE else None)
            run.clock.forget_step_times()
        elif event and event["compiled"] and event["step"] <= run.state.step and not self._has_tried:
            self._compile(self._time_gradient)

    def _measure_share(self) -> int:
        """Return the time of a compiled gradient in thousandths of a plain one's, or `FAILED`."""
        times: dict[bool, list[float]] = {True: [], False: []}

        def measure() -> None:
            self._time_gradient()
            for _ in range(ROUNDS):
                for compiled in times:
                    set_forward(self._layers, self._compiled if compiled else None)
                    times[compiled].append(self._time_gradient())

        return round(1000 * min(times[True]) / min(times[False])) if self._compile(measure) else FAILED

    def _compile(self, first_use: Callable[[], object]) -> bool:
        """Compile the layers and call `first_use`, which triggers the compiler. On failure, say why and run uncompiled."""
        run, begun, self._has_tried = self._run, time.perf_counter(), True
        run.meter.pause()
        try:
            self._compiled = compiled_layer(self._layers[0])
            set_forward(self._layers, self._compiled)
            first_use()
            run.console.say(
                f"compiled the layers in {time.perf_counter() - begun:.0f} s (cached in {self._cache_marker.parent})"
            )
            self._cache_marker.parent.mkdir(parents=True, exist_ok=True)
            self._cache_marker.touch()
            return True
        except Exception as error:  # compiling is optional: no failure of it may end the run
            set_forward(self._layers, None)
            why = str(error).strip().partition("\n")[0] or type(error).__name__
            run.console.say(f"note: the layers are not compiled: {why}")
            return False
        finally:
            run.meter.resume()

    def _time_gradient(self) -> float:
        """Return the seconds to compute this step's gradient. The step itself computes it again."""
        run, begun = self._run, time.perf_counter()
        loss, _ = step.gradients(run, run.state.micro_batch, synced=precision.is_sharded(run.accelerator))
        float(loss)  # waits for the device
        return time.perf_counter() - begun
