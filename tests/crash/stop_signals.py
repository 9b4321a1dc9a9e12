"""Signals: the step is finished and saved, the status says which it was, and the same command goes on as if there had been none."""

from kills import copied, half_way
from runs import Bench, check_death, log_lines, newest_step, words_of

STATUS = {"SIGTERM": 143, "SIGINT": 130, "SIGUSR1": 143, "SIGHUP": 129}
MOMENTS = {  # where in a run of six steps the signal comes, and after which step it ends
    "tokenizing": ({"point": "tokenizing", "at": 9}, 0),
    "first step": ({"point": "step", "at": 1}, 1),
    "step": ({"point": "step", "at": 3}, 3),
    "evaluation": ({"point": "evaluation", "at": 1}, 3),
    "saving": ({"point": "system", "at": 150}, 2),
    "publishing": ({"point": "system", "at": 225}, 2),
}


def one_signal(bench: Bench, mode: str, name: str, moment: str) -> None:
    """Sent by the process to itself, so that it comes at this very moment."""
    where, step = MOMENTS[moment]
    folder = bench.new(moment)
    ended = bench.run(words_of(mode, folder), {**where, "does": [name]})
    bench.figures.add(signals=1)
    assert ended.status == STATUS[name], f"{name} in {moment}: {ended.status} {ended.said}"
    assert f"stopped by {name}" in ended.last_line and "Traceback" not in ended.said, ended.said
    assert newest_step(folder) == step, ended.said
    check_death(folder, mode)
    assert all(path.name.endswith(".unfinished") for path in folder.glob("tmp-*"))  # tokenizing goes on from there
    if step:
        assert f"after step {step}, saved in {folder}; the same command goes on" in ended.last_line
        assert max(line["step"] for line in log_lines(folder)) == step
    bench.same_command_goes_on(mode, folder)


def two_signals(bench: Bench, mode: str, at: int) -> None:
    """A second Ctrl-C leaves at once, in the middle of a save; nothing is torn, and nothing half-written stays."""
    before = half_way(bench, mode)
    folder = copied(bench, before)
    ended = bench.run(words_of(mode, folder), {"point": "system", "at": at, "does": ["SIGINT", "SIGINT"]})
    bench.figures.add(signals=2)
    assert ended.status == 130 and "stopped by SIGINT" in ended.last_line, f"call {at}: {ended.said}"
    check_death(folder, mode)
    bench.same_command_goes_on(mode, folder)
