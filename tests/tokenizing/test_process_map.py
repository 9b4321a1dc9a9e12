"""Results are in order for any number of processes, and a failing process is one error."""

import functools
import json
import os

import pytest

from tinygpt_hf.errors import RunError, UsageError
from tinygpt_hf.reading.turns import check_messages
from tinygpt_hf.tokenizing.process_map import ordered_map


@pytest.mark.parametrize("num_proc", [1, 2])
def test_results_are_in_the_order_of_the_batches(num_proc):
    batches = [{"words": f"[{k}]"} for k in range(9)]
    results = list(ordered_map(json.loads, iter(batches), num_proc, argument=lambda batch: batch["words"]))
    assert results == [(batch, [k]) for k, batch in enumerate(batches)]
    assert list(ordered_map(json.loads, [], num_proc)) == []
    few = ordered_map(lambda batch: batch, batches, num_proc, here=9)  # a lambda cannot be pickled
    assert list(few) == [(batch, batch) for batch in batches]


@pytest.mark.parametrize(
    ("function", "batch", "kind", "words"),
    [
        (os._exit, 3, RunError, "a worker process ended with status 3"),
        (json.loads, "[", RunError, "a worker process failed: JSONDecodeError: "),
        (functools.partial(check_messages, where="here"), [], UsageError, "here: is not a list of messages"),
        (print, "noise on standard output is no answer", None, None),
    ],
)
def test_a_failing_worker_is_one_error(function, batch, kind, words):
    results = ordered_map(function, [batch] * 3, 2, here=0)
    if kind is None:
        assert [result for _, result in results] == [None] * 3
        return
    with pytest.raises(kind) as caught:
        list(results)
    assert str(caught.value).startswith(words) and "\n" not in str(caught.value)
