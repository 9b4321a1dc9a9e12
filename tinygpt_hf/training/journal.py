"""Write down what happens in a run: log.jsonl, the board beside it where one is asked for, and what goes wrong as it shows."""

from tinygpt_hf.inspection.diagnoses import Diagnosis, diagnoses
from tinygpt_hf.training.board import Board
from tinygpt_hf.training.log import RunLog
from tinygpt_hf.training.run_folder import LOG

EVERY = 10  # lines after which a run is looked over again, beside every evaluation


class Journal:
    """Hold the log of a run that begins, or goes on, at its step."""

    def __init__(self, run):
        self._log = RunLog(run.folder / LOG, run.state.step)
        self._run, self._say = run, run.console.say
        self._baselines = {baseline.name: baseline.loss for baseline in run.beaten}
        self._told = set(self._found())
        name = run.training.report_to
        self._board = Board(name, run.folder, run.state.step, self._say) if name else None

    def write(self, line: dict) -> None:
        """Add a line, and say what it shows."""
        self._log.write(line)
        if self._board:
            self._board.write(line)
        if "eval_loss" in line or len(self._log.lines) % EVERY == 0:
            new = [found for found in self._found() if found not in self._told]
            self._told.update(new)
            for found in new:
                self._say(str(found))

    def close(self) -> None:
        """Close the board."""
        if self._board:
            self._board.close()

    def _found(self) -> list[Diagnosis]:
        return diagnoses(self._log.lines, self._baselines, self._run.plan.max_steps)
