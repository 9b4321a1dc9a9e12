"""Decisions of a run while it trains, stored as `events` in run.json before the first step they affect.

A resumed run reads them and applies them again, so it takes the same steps as an uninterrupted one.
"""

from tinygpt_hf.training import run_folder


def known(run) -> list[dict]:
    """Return the events of a run so far, oldest first."""
    return run_folder.read_facts(run.folder).get("events", [])


def record(run, name: str, **values) -> dict:
    """Record and return an event that applies from the next step on. Every process calls it; only the main one writes."""
    event = {"event": name, "step": run.state.step, **values}
    if run.is_main:
        run_folder.update(run.folder, {"events": [*known(run), event | {"seconds": round(run.clock.seconds, 1)}]})
    return event
