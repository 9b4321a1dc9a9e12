"""When a run with a time budget ends: the step at which its rate begins to fall, decided once, and an event from then on.

It is the step at which the decay, the evaluations and savings among it, and what comes after just fill the time that is left.
With the event (events.py) the end of the run is fixed. So a machine that slows down shortens the plateau, never the decay.
"""

import time
from collections import deque
from dataclasses import replace

from tinygpt_hf.settings.conversion import seconds_of
from tinygpt_hf.training import events
from tinygpt_hf.training.probe import peak_memory

RECENT = 64  # steps that say how fast the machine is now
CLOSING = 3.5  # seconds: the last card and report, the end of the process
DECAY = "decay"
CHECKED = 16  # the step before which the length of the decay may still change
LONGEST = 0.8  # of the steps that are left then, for the decay
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
        self.decay_steps = run.training.decay_steps

    @property
    def seconds(self) -> float:
        """Seconds so far, those of processes that are gone included."""
        return time.monotonic() - self._begun

    @property
    def age(self) -> float:
        """What a checkpoint keeps of the time: of a run without a budget nothing, so that equal runs have equal checkpoints."""
        return 0.0 if self.total is None else self.seconds

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
            self.decay_steps = self.run.training.decay_steps
            for event in events.known(self.run):
                self._take(event)
            self._settle()

    def _take(self, event: dict) -> None:
        """Keep to an event, if it is one of the clock's."""
        self.decay_steps = event.get("decay_steps", self.decay_steps)
        if event["event"] == DECAY:
            self.event = event

    def _settle(self) -> None:
        """End the run where the event says, or keep its end out of reach while there is none."""
        run = self.run
        steps = max(run.plan.max_steps, run.state.step + self.decay_steps + 1)
        if self.event:
            steps = self.event["max_steps"]
        if steps != run.plan.max_steps:
            run.plan = replace(run.plan, max_steps=steps, total_rows=steps * run.plan.rows_per_step)

    def tick(self) -> None:
        """Before a step: take the time of the one before."""
        trained = self.run.meter.training_seconds
        if self._trained is not None:
            self._recent.append(trained - self._trained)
        self._trained = trained

    def forget_pace(self) -> None:
        """Steps take another time from now on."""
        self._recent.clear()

    def proposals(self) -> tuple[int, int]:
        """What the run should decide before this step: (another length of the decay, does it begin?), each 0 for no."""
        step = self.run.state.step
        fitting = self._fitting() if self.is_open and step == CHECKED else 0
        return fitting, int(self.is_open and not fitting and self._is_due(step))

    def decide(self, fitting: int, begins: int) -> None:
        """Record what all processes decided, and keep to it."""
        if not self.is_open:
            return
        run = self.run
        if fitting:
            self._take(events.record(run, "shorter", decay_steps=fitting))
        if begins:
            values = {"decay_steps": self.decay_steps, "max_steps": run.state.step + self.decay_steps}
            self._take(events.record(run, DECAY, **values))
        self._settle()
        run.meter.lengthen(run.plan.max_steps)

    @property
    def steps_timed(self) -> int:
        """How many steps the pace is known from."""
        return len(self._recent)

    @property
    def each(self) -> float:
        """Seconds that a step takes now."""
        return sum(self._recent) / len(self._recent)

    @property
    def left(self) -> float:
        """Seconds the run will still take, as far as the pace tells."""
        if self.total is not None:
            return self.total - self.seconds
        return self.each * (self.run.plan.max_steps - self.run.state.step)

    def _fitting(self) -> int:
        """A length of the decay that fits the time, if the planned one does not, as real steps are slower than those that were
        measured before; else 0."""
        if not self._recent:
            return 0
        left = self.total - self.seconds
        steps = (left - self._beside(self.decay_steps)) / self.each
        return max(1, int(LONGEST * steps)) if self.decay_steps > LONGEST * steps else 0

    def _is_due(self, step: int) -> bool:
        planned = self.run.planned
        if planned["is_enough"] and step + self.decay_steps >= planned["steps"]:
            return True
        if not self._recent or step < CHECKED:
            return False
        return self.total - self.seconds <= self.decay_steps * self.each + self._beside(self.decay_steps)

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
