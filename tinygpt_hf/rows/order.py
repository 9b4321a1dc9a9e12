"""Compute the order of training rows as a pure function of (seed, epoch, position).

The stream of rows is infinite: each epoch is a permutation of all rows. Position p of the stream is row `order(p % rows)` of
epoch `p // rows`. A step with an effective batch of E rows takes positions [step*E, (step+1)*E). Therefore

- the data position of a checkpoint is one integer, and resuming skips or replays nothing;
- the rows of a step do not depend on the number of processes or micro-batches, only which process gets which row does;
- streamed rows come in windows of R rows, each permuted by itself, so a window's order is known before the next one exists;
- no permutation is stored: it is a keyed Feistel network (Luby and Rackoff 1988) over the next power of four, repeated until
  the result falls inside the range (Black and Rogaway 2002). It uses integer arithmetic only, so the order does not depend
  on a library's random number generator.
"""

import numpy as np

_MASK64 = (1 << 64) - 1
_ROUNDS = 6


def mix(*values: int) -> int:
    """Hash integers to 64 bits with a chained SplitMix64 finalizer (Steele et al. 2014)."""
    state = 0x9E3779B97F4A7C15
    for value in values:
        state = (state ^ (value & _MASK64)) * 0xBF58476D1CE4E5B9 & _MASK64
        state ^= state >> 27
        state = state * 0x94D049BB133111EB & _MASK64
        state ^= state >> 31
    return state


def permuted(positions: np.ndarray, size: int, seed: int, epoch: int) -> np.ndarray:
    """Map `positions` (0..size-1) through the permutation of 0..size-1 keyed by (seed, epoch); returns int64."""
    positions = np.asarray(positions, dtype=np.uint64)
    if positions.size and int(positions.max()) >= size:
        raise ValueError(f"position {int(positions.max())} lies outside 0..{size - 1}")
    half_bits = max(1, -(-max(size - 1, 1).bit_length() // 2))
    keys = [np.uint64(mix(seed, epoch, k)) for k in range(_ROUNDS)]
    result = _feistel(positions, half_bits, keys)
    outside = result >= size
    while outside.any():  # the network covers less than four times the range: under four rounds on average
        result[outside] = _feistel(result[outside], half_bits, keys)
        outside = result >= size
    return result.astype(np.int64)


def _feistel(values: np.ndarray, half_bits: int, keys: list[np.uint64]) -> np.ndarray:
    low = np.uint64((1 << half_bits) - 1)
    shift = np.uint64(half_bits)
    left, right = values >> shift, values & low
    for key in keys:
        mixed = (right ^ key) * np.uint64(0xBF58476D1CE4E5B9)
        mixed ^= mixed >> np.uint64(29)
        mixed *= np.uint64(0x94D049BB133111EB)
        left, right = right, left ^ ((mixed >> np.uint64(32)) & low)
    return (left << shift) | right


def epoch_offset(block_size: int, seed: int, epoch: int) -> int:
    """Return the offset in 1..block_size at which an epoch cuts the text, a pure function of (seed, epoch)."""
    return 1 + mix(seed, epoch, 0x0FF5E7) % block_size


def rows_at(positions: np.ndarray, size: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return (epoch, row) for each position of the stream over `size` rows."""
    epochs, places = np.divmod(np.asarray(positions, dtype=np.int64), size)
    rows = np.empty_like(places)
    for epoch in np.unique(epochs):
        here = epochs == epoch
        rows[here] = permuted(places[here], size, seed, int(epoch))
    return epochs, rows


def windowed_rows_at(
    positions: np.ndarray, borders: np.ndarray, seed: int, size: int | None
) -> tuple[np.ndarray, np.ndarray]:
    """Return (epoch, row) as `rows_at` does, with each window of rows permuted separately and windows in order.

    Window k holds rows borders[k] to borders[k + 1] - 1. With `size` None the end of the text is not known yet: all positions
    belong to epoch 0.
    """
    positions = np.asarray(positions, dtype=np.int64)
    epochs, places = np.divmod(positions, size) if size else (np.zeros_like(positions), positions)
    windows = np.searchsorted(borders, places, side="right") - 1
    rows = np.empty_like(places)
    for epoch, window in np.unique(np.stack([epochs, windows]), axis=1).T.tolist():
        here = (epochs == epoch) & (windows == window)
        begin, end = int(borders[window]), int(borders[window + 1])
        rows[here] = begin + permuted(places[here] - begin, end - begin, seed, mix(epoch, window))
    return epochs, rows


def share(first: int, count: int, parts: int, part: int) -> tuple[int, int]:
    """Return part `part` of `parts` of positions [first, first + count), as (first, count).

    Parts are contiguous and their sizes differ by at most one. Used for processes, and for micro-batches inside a process.
    """
    begin, end = count * part // parts, count * (part + 1) // parts
    return first + begin, end - begin
