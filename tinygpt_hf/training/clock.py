"""When a run with a time budget ends: the step at which its rate begins to fall, decided once, and an event from then on.

It is the step at which the decay, the evaluations and savings among it, and what comes after just fill the time that is left. The
event stands in run.json, synced before the first step it affects; with it the end of the run is fixed. So a machine that slows
down shortens the plateau, never the decay, and a run that goes on after a kill finds the event and keeps to it.
"""

import time
from collections import deque
from dataclasses import replace

from tinygpt_hf.settings.conversion import seconds_of
from tinygpt_hf.training import run_folder
from tinygpt_hf.training.probe import peak_memory

RECENT = 64  # steps that say how fast the machine is now
CLOSING = 3.5  # seconds: the last card and report, the end of the process
EVENT = "decay"
ENDLESS = 1 << 60


class Clock:
    """Counts the seconds a run takes while a process of it is alive, and decides when its decay begins.

    `total`: seconds the whole command may take; None: the length of the run is known. `before`: seconds that passed before this
    was made.
    """

    def __init__(self, run, before: float):
        self.run, budget = run, run.training.time_budget
        self.total = seconds_of(budget) if budget else None
        self._begun = time.monotonic() - before
        self._recent: deque[float] = deque(maxlen=RECENT)
        self._trained: float | None = None
        self.event: dict | None = None

    @property
    def seconds(self) -> float:
        """Seconds so far, those of processes that are gone included."""
        return time.monotonic() - self._begun

    @property
    def total_rows(self) -> int:
        """How many rows the run shows; while nobody knows, more than it ever will."""
        return self.run.plan.total_rows if self.total is None else ENDLESS

    @property
    def is_open(self) -> bool:
        """Is the end of the run still to be decided?"""
        return self.total is not None and self.event is None

    def go_on_from(self, seconds: float) -> None:
        """The run is `seconds` old, and keeps to the event it may have had."""
        self._begun -= seconds
        if self.total is not None:
            events = run_folder.read_facts(self.run.folder).get("events", [])
            self.event = next((event for event in events if event["event"] == EVENT), None)
            self._settle()

    def _settle(self) -> None:
        """End the run where the event says, or keep its end out of reach while there is none."""
        run = self.run
        steps = max(run.plan.max_steps, run.state.step + run.training.decay_steps + 1)
        if self.event:
            steps = self.event["max_steps"]
        if steps != run.plan.max_steps:
            run.plan = replace(run.plan, max_steps=steps, total_rows=steps * run.plan.rows_per_step)

    def tick(self) -> None:
        """Before a step: is it the first of the decay? The first process decides for all."""
        if not self.is_open:
            return
        run, step = self.run, self.run.state.step
        trained = run.meter.training_seconds
        if self._trained is not None:
            self._recent.append(trained - self._trained)
        self._trained = trained
        if run.interruption.agreed(int(run.is_main and self._is_due(step))):
            self.event = {"event": EVENT, "step": step, "max_steps": step + run.training.decay_steps}
            if run.is_main:
                run_folder.update(run.folder, {"events": [self.event | {"seconds": round(self.seconds, 1)}]})
        self._settle()
        run.meter.lengthen(run.plan.max_steps)

    def _is_due(self, step: int) -> bool:
        decay = self.run.training.decay_steps
        planned = self.run.planned
        if planned["is_enough"] and step + decay >= planned["steps"]:
            return True
        if not self._recent:
            return False
        each = sum(self._recent) / len(self._recent)
        return self.total - self.seconds <= decay * each + self._beside(decay)

    def _beside(self, steps: int) -> float:
        """Seconds for what stands beside so many last steps and comes after them."""
        run, meter = self.run, self.run.meter
        evaluations = steps // run.plan.eval_steps + 1 if run.plan.eval_steps else 1
        saves = steps // run.plan.save_steps + 1 if run.plan.save_steps else 1
        whole = run.planned["evaluation_seconds"] * len(run.held_out_view) * run.data.block_size
        return evaluations * meter.mean("evaluation") + (saves + 1) * meter.mean("saving") + whole + CLOSING

    def came_true(self, result) -> dict:
        """What the plan foretold, as it came."""
        run = self.run
        bits = result.eval_bits_per_byte
        return {
            "seconds": round(self.seconds, 1),
            "memory_bytes": peak_memory(run.accelerator.device.type),
            "parameters": result.parameters,
            "train_tokens": result.tokens,
            "epochs": round(run.plan.total_rows / max(run.plan.rows_per_epoch, 1), 3),
            **dict.fromkeys(("bits_per_byte", "low", "high"), bits),
        }
