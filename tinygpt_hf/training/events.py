"""What a run decides on the way: events in run.json, each on the disk before the first step it affects.

A run that goes on after a kill finds them and keeps to them, so it becomes what it would have been.
"""

from tinygpt_hf.training import run_folder


def known(run) -> list[dict]:
    """The events of a run so far, in order."""
    return run_folder.read_facts(run.folder).get("events", [])


def record(run, name: str, **values) -> dict:
    """Record and return an event of the step that comes next; every process calls it, the first one writes."""
    event = {"event": name, "step": run.state.step, **values}
    if run.is_main:
        run_folder.update(run.folder, {"events": [*known(run), event | {"seconds": round(run.clock.seconds, 1)}]})
    return event
