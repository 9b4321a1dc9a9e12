"""The clock of a run with a time budget: it decides at which step the learning rate begins to decay.

The decay begins when the decay steps, their evaluations and checkpoints, and the closing work just fill the time left. The
decision is recorded as an event (events.py) and fixes the last step. So a slow machine shortens the plateau, never the decay.
"""

import time
from collections import deque
from dataclasses import replace

from tinygpt_hf.settings.conversion import seconds_of
from tinygpt_hf.training import events
from tinygpt_hf.training.probe import peak_memory

RECENT_STEPS = 64  # the step time is a mean over these
CLOSING = 3.5  # seconds to write the last card and report and to end the process
DECAY = "decay"
CHECKED = 16  # the decay is shortened before this step, if the planned one is too long
LONGEST = 0.8  # largest share of the remaining steps for a shortened decay
ENDLESS = 1 << 60


class Clock:
    """Wall-clock time of a run, summed over its processes, and the start of its learning rate decay.

    `total`: the time budget in seconds, or None if the number of steps is given. `before`: seconds the command took before
    this object was made.
    """

    def __init__(self, run, before: float):
        self.run, budget = run, run.training.time_budget
        self.total = seconds_of(budget) if budget else None
        self._begun = time.monotonic() - before
        self._recent: deque[float] = deque(maxlen=RECENT_STEPS)
        self._last_seconds: float | None = None
        self.event: dict | None = None
        self.decay_steps = run.training.decay_steps

    @property
    def seconds(self) -> float:
        """Return the seconds used so far, including those of earlier processes of this run."""
        return time.monotonic() - self._begun

    @property
    def saved_seconds(self) -> float:
        """Return the seconds to store in a checkpoint: 0 without a budget, so that equal runs have equal checkpoints."""
        return 0.0 if self.total is None else self.seconds

    @property
    def total_rows(self) -> int:
        """Return how many rows the run trains on, or `ENDLESS` under a time budget."""
        return self.run.plan.total_rows if self.total is None else ENDLESS

    @property
    def is_open(self) -> bool:
        """Return True while the last step is not decided."""
        return self.total is not None and self.event is None

    def restore(self, seconds: float) -> None:
        """Add the `seconds` of earlier processes, and apply the events they recorded."""
        self._begun -= seconds
        if self.total is not None:
            self.decay_steps = self.run.training.decay_steps
            for event in events.known(self.run):
                self._apply(event)
            self._update_plan()

    def _apply(self, event: dict) -> None:
        self.decay_steps = event.get("decay_steps", self.decay_steps)
        if event["event"] == DECAY:
            self.event = event

    def _update_plan(self) -> None:
        """Set the last step to that of the event; without an event, keep it out of reach."""
        run = self.run
        steps = max(run.plan.max_steps, run.state.step + self.decay_steps + 1)
        if self.event:
            steps = self.event["max_steps"]
        if steps != run.plan.max_steps:
            run.plan = replace(run.plan, max_steps=steps, total_rows=steps * run.plan.rows_per_step)

    def tick(self) -> None:
        """Record how long the last step took. Called before each step."""
        trained = self.run.meter.training_seconds
        if self._last_seconds is not None:
            self._recent.append(trained - self._last_seconds)
        self._last_seconds = trained

    def forget_step_times(self) -> None:
        """Drop the measured step times, after a change that makes steps faster or slower."""
        self._recent.clear()

    def proposals(self) -> tuple[int, int]:
        """Return what this process proposes before the next step: (shorter decay in steps or 0, 1 to begin the decay)."""
        step = self.run.state.step
        shorter = self._shorter_decay() if self.is_open and step == CHECKED else 0
        return shorter, int(self.is_open and not shorter and self._is_due(step))

    def decide(self, shorter: int, begins: int) -> None:
        """Record and apply proposals that all processes agreed on."""
        if not self.is_open:
            return
        run = self.run
        if shorter:
            self._apply(events.record(run, "shorter", decay_steps=shorter))
        if begins:
            values = {"decay_steps": self.decay_steps, "max_steps": run.state.step + self.decay_steps}
            self._apply(events.record(run, DECAY, **values))
        self._update_plan()
        run.meter.max_steps = run.plan.max_steps

    @property
    def steps_timed(self) -> int:
        """Return how many steps `step_seconds` is averaged over."""
        return len(self._recent)

    @property
    def step_seconds(self) -> float:
        """Return the mean duration of recent steps in seconds."""
        return sum(self._recent) / len(self._recent)

    @property
    def seconds_left(self) -> float:
        """Return the seconds left in the budget; without one, estimate them from recent steps."""
        if self.total is not None:
            return self.total - self.seconds
        return self.step_seconds * (self.run.plan.max_steps - self.run.state.step)

    def _shorter_decay(self) -> int:
        """Return a decay length in steps that fits the time left, or 0 if the planned one does.

        Real steps can be slower than those measured for the plan.
        """
        if not self._recent:
            return 0
        steps = (self.seconds_left - self._overhead(self.decay_steps)) / self.step_seconds
        return max(1, int(LONGEST * steps)) if self.decay_steps > LONGEST * steps else 0

    def _is_due(self, step: int) -> bool:
        planned = self.run.planned
        if planned["is_enough"] and step + self.decay_steps >= planned["steps"]:
            return True
        if not self._recent or step < CHECKED:
            return False
        return self.seconds_left <= self.decay_steps * self.step_seconds + self._overhead(self.decay_steps)

    def _overhead(self, steps: int) -> float:
        """Estimate the seconds beside the last `steps` steps: evaluations, checkpoints and the closing work."""
        run, meter = self.run, self.run.meter
        evaluations = steps // run.plan.eval_steps + 1 if run.plan.eval_steps else 1
        saves = steps // run.plan.save_steps + 1 if run.plan.save_steps else 1
        final = run.planned["evaluation_seconds"] * len(run.held_out_view) * run.data.block_size
        return evaluations * meter.mean_pause("evaluation") + (saves + 1) * meter.mean_pause("saving") + final + CLOSING

    def actual_figures(self, result) -> dict:
        """Return the measured values of what the plan predicted, under the plan's keys."""
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
