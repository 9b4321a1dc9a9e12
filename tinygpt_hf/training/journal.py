"""Write the log lines of a run to log.jsonl and to a tracker, and report problems that they show."""

from tinygpt_hf.inspection.diagnoses import Diagnosis, diagnoses
from tinygpt_hf.training.board import Board
from tinygpt_hf.training.log import RunLog
from tinygpt_hf.training.run_folder import LOG

DIAGNOSE_EVERY = 10  # log lines; also after each evaluation


class Journal:
    """The log of a run, from its current step on."""

    def __init__(self, run):
        self._log = RunLog(run.folder / LOG, run.state.step)
        self._run, self._say = run, run.console.say
        self._baselines = {baseline.name: baseline.loss for baseline in run.baselines}
        self._reported = set(self._diagnoses())
        name = run.training.report_to
        self._board = Board(name, run.folder, run.state.step, self._say) if name else None

    def write(self, line: dict) -> None:
        """Append a line, and report each new diagnosis once."""
        self._log.write(line)
        if self._board:
            self._board.write(line)
        if "eval_loss" in line or len(self._log.lines) % DIAGNOSE_EVERY == 0:
            for diagnosis in self._diagnoses():
                if diagnosis not in self._reported:
                    self._reported.add(diagnosis)
                    self._say(str(diagnosis))

    def close(self) -> None:
        """Close the tracker."""
        if self._board:
            self._board.close()

    def _diagnoses(self) -> list[Diagnosis]:
        return diagnoses(self._log.lines, self._baselines, self._run.plan.max_steps)
