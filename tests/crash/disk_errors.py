"""A full or broken disk, or a spent quota, at the Nth system call: one line, the old stays whole, the same command goes on."""

from pathlib import Path

from kills import copied, swept
from runs import Bench, check_death, words_of


def at_each_system_call(bench: Bench, mode: str, begun: bool, part: int, parts: int) -> None:
    """Every call of a start, or of a resumption with a save, fails once with ENOSPC, every fifth with EIO and EDQUOT."""
    before, calls = swept(bench, mode, begun)
    for at, call in enumerate(calls, 1):
        if at % parts == part:
            for name in ("ENOSPC", "EIO", "EDQUOT") if at % 5 == part % 5 else ("ENOSPC",):
                one_error(bench, mode, before, at, call, name)


def one_error(bench: Bench, mode: str, before: Path | None, at: int, call: str, name: str) -> None:
    folder = copied(bench, before)
    fault = {"point": "system", "at": at, "does": name, "lasting": at % 2 == 0}
    ended = bench.run(words_of(mode, folder), fault)
    about = f"{name} at call {at} ({call}): {ended.said}"
    removing = call.startswith("remove ")
    # unlink needs no space, though what came after it may; a run without its report is still a whole run, and says so
    is_forgiven = (removing and name != "EIO") or "there is no report.html" in ended.said
    if is_forgiven and ended.status == 0:
        bench.same_command_goes_on(mode, folder)
        return
    bench.figures.add(errors=1)
    assert ended.status == 1, about
    last = ended.last_line
    assert last.startswith("error: ") and "free" in last and "the same command" in last, about
    assert "Traceback" not in ended.said, about
    if before is not None and not removing and "tmp-" in call and "run.yaml" not in call and "run.json" not in call:
        assert "log.jsonl" in call or "a checkpoint needs" in last, about
    check_death(folder, mode)
    if name != "EIO":  # a disk that cannot remove keeps what is half-written, until the next start
        assert not list(folder.rglob("tmp-*")), f"{about}: left {list(folder.rglob('tmp-*'))}"
    bench.same_command_goes_on(mode, folder)
