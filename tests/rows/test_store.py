"""The row store: every id but the first is a target exactly once for every offset, and documents round-trip."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinygpt_hf import storage
from tinygpt_hf.errors import RunError, UsageError
from tinygpt_hf.rows import shard as rows_module
from tinygpt_hf.rows.store import IGNORED, Rows, RowWriter, rows_per_epoch


def write(folder: Path, documents, masks=None, vocab_size=1000) -> Rows:
    with RowWriter(folder, vocab_size, {"note": "kept"}) as writer:
        for k, ids in enumerate(documents):
            writer.add(ids, None if masks is None else masks[k])
    return Rows(folder)


def slow_rows(stream, bits, block_size, offset):
    """Fill rows with the targets one by one, as a simple reference implementation."""
    rows, row_in, row_out = [], [], []
    lengths = [offset] if offset else []
    for target in range(1, len(stream)):
        row_in.append(stream[target - 1])
        row_out.append(stream[target] if bits[target] else IGNORED)
        if len(row_in) == (lengths[0] if lengths else block_size):
            lengths = lengths[1:]
            rows.append((row_in, row_out))
            row_in, row_out = [], []
    rows.append((row_in, row_out))
    while len(rows) < rows_per_epoch(len(stream), block_size, bool(offset)):
        rows.append(([], []))
    rows = rows[: rows_per_epoch(len(stream), block_size, bool(offset))]
    pad = lambda values, filler: values + [filler] * (block_size - len(values))  # noqa: E731
    return [pad(i, 0) for i, _ in rows], [pad(o, IGNORED) for _, o in rows]


documents_strategy = st.lists(st.lists(st.integers(0, 999), min_size=1, max_size=20), min_size=1, max_size=12)


@settings(max_examples=60, deadline=None)
@given(documents=documents_strategy, block_size=st.integers(1, 17), shift=st.integers(0, 17), seed=st.integers(0, 99))
def test_rows_equal_a_slow_reference_implementation(tmp_path_factory, documents, block_size, shift, seed):
    offset = min(shift, block_size)
    masks = [list(np.random.default_rng(seed + k).integers(0, 2, len(d))) for k, d in enumerate(documents)]
    rows = write(tmp_path_factory.mktemp("rows") / "r", documents, masks)
    stream, bits = sum(documents, []), sum(masks, [])
    if len(stream) < 2:
        assert rows.count(block_size) == 0
        return
    count = rows.count(block_size, shifted=bool(offset))
    input_ids, labels = rows.batch(range(count), block_size, offset)
    expected_in, expected_out = slow_rows(stream, bits, block_size, offset)
    assert labels.tolist() == expected_out
    assert input_ids.tolist() == expected_in
    assert rows.num_targets == sum(bool(b) for b in bits[1:])


def test_large_vocabularies_are_stored_in_four_bytes(tmp_path):
    ids = [0, 65_535, 65_536, 99_999]
    rows = write(tmp_path / "r", [ids], vocab_size=100_000)
    assert rows.tokens.dtype == np.uint32 and rows.document(0).tolist() == ids
    assert write(tmp_path / "s", [[65_535]], vocab_size=65_536).tokens.dtype == np.uint16


def test_an_id_outside_the_vocabulary_is_refused_and_leaves_nothing(tmp_path):
    with pytest.raises(RunError, match="70000 lies outside the vocabulary of 1000"):
        write(tmp_path / "r", [[1], [70_000]])
    assert list(tmp_path.iterdir()) == []


def test_documents_round_trip(tmp_path):
    documents = [[1, 2, 3], [4], [5, 6]]
    rows = write(tmp_path / "r", documents)
    assert [rows.document(k).tolist() for k in range(rows.num_documents)] == documents
    assert not rows.is_masked and rows.manifest["note"] == "kept"


def test_a_folder_appears_complete_or_not_at_all(tmp_path):
    with pytest.raises(KeyboardInterrupt), RowWriter(tmp_path / "r", 10) as writer:
        writer.add([1, 2])
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


def test_damage_is_noticed_and_named(tmp_path):
    rows = write(tmp_path / "r", [list(range(500))])
    rows.verify()
    path = tmp_path / "r" / "tokens.bin"
    data = bytearray(path.read_bytes())
    data[123] ^= 1
    path.write_bytes(data)
    with pytest.raises(RunError, match="tokens.bin has other content"):
        rows.verify()
    path.write_bytes(data[:-2])
    with pytest.raises(RunError, match="has 998 bytes instead of 1000"):
        Rows(tmp_path / "r")


def test_a_folder_without_rows_is_a_usage_error(tmp_path):
    with pytest.raises(UsageError, match="holds no manifest.json"):
        Rows(tmp_path)


def test_the_manifest_counts_targets(tmp_path):
    write(tmp_path / "r", [[1, 2, 3, 4]], [[0, 1, 0, 1]])
    manifest = json.loads((tmp_path / "r" / storage.MANIFEST).read_text())
    assert manifest["num_tokens"] == 4 and manifest["num_target_tokens"] == 2


@pytest.mark.parametrize("place", [1, 3, 4, 5, 9])
def test_unordered_document_starts_are_noticed_in_every_part(tmp_path, monkeypatch, place):
    monkeypatch.setattr(rows_module, "PART", 4)
    write(tmp_path / "r", [[1, 2]] * 10)
    path = tmp_path / "r" / "documents.bin"
    starts = np.fromfile(path, dtype=np.uint64)
    Rows(tmp_path / "r")
    starts[place] = starts[place - 1]
    path.write_bytes(starts.tobytes())
    with pytest.raises(RunError, match="out of order"):
        Rows(tmp_path / "r")


def test_the_mask_of_all_rows_is_the_mask_of_the_documents(tmp_path):
    with RowWriter(tmp_path / "rows", 10) as writer:
        writer.add([1, 2, 3], [0, 1, 1])
        writer.add([4, 5], [1, 0])
    rows = Rows(tmp_path / "rows")
    assert rows.is_target.tolist() == [*rows.targets(0), *rows.targets(1)] == [False, True, True, True, False]
