"""Which rows at which step: a pure function of (seed, epoch, position).

The stream of rows is infinite: epoch after epoch, each a permutation of all rows. Position p of the stream is row
`order(p % rows)` of epoch `p // rows`; a step with an effective batch of E rows takes positions [step*E, (step+1)*E). So

- resume is one integer, and nothing has to be skipped or replayed;
- processes share a step by arithmetic: the rows of a step do not depend on how many processes or micro-batches it is cut
  into, only which process computes which of them does;
- rows that are still being read come in windows of R rows, each window permuted by itself, so that the order of a window is
  known before the next one is;
- nothing is held in memory, however many rows there are: the permutation is a keyed Feistel network (Luby and Rackoff 1988)
  over the next power of four, walked until it falls inside the range (Black and Rogaway 2002), written out in integer
  arithmetic, so that the order never changes with a library's random number generator.
"""

import numpy as np

_MASK64 = (1 << 64) - 1
_ROUNDS = 6


def mix(*values: int) -> int:
    """A 64-bit hash of whole numbers (the finaliser of SplitMix64, Steele et al. 2014, chained)."""
    state = 0x9E3779B97F4A7C15
    for value in values:
        state = (state ^ (value & _MASK64)) * 0xBF58476D1CE4E5B9 & _MASK64
        state ^= state >> 27
        state = state * 0x94D049BB133111EB & _MASK64
        state ^= state >> 31
    return state


def permuted(positions: np.ndarray, size: int, seed: int, epoch: int) -> np.ndarray:
    """Where each of `positions` (0..size-1) lies in the permutation of 0..size-1 that belongs to (seed, epoch)."""
    positions = np.asarray(positions, dtype=np.uint64)
    if positions.size and int(positions.max()) >= size:
        raise ValueError(f"position {int(positions.max())} lies outside 0..{size - 1}")
    half_bits = max(1, -(-max(size - 1, 1).bit_length() // 2))
    keys = [np.uint64(mix(seed, epoch, k)) for k in range(_ROUNDS)]
    result = _feistel(positions, half_bits, keys)
    outside = result >= size
    while outside.any():  # the network covers less than four times the range, so a walk takes four rounds on average
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
    """The cut of an epoch: 1..block_size, a pure function of (seed, epoch). The first epoch is drawn like all others."""
    return 1 + mix(seed, epoch, 0x0FF5E7) % block_size


def rows_at(positions: np.ndarray, size: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """(epoch, row) at each of these positions of the stream over `size` rows."""
    epochs, places = np.divmod(np.asarray(positions, dtype=np.int64), size)
    rows = np.empty_like(places)
    for epoch in np.unique(epochs):
        here = epochs == epoch
        rows[here] = permuted(places[here], size, seed, int(epoch))
    return epochs, rows


def windowed_rows_at(
    positions: np.ndarray, borders: np.ndarray, seed: int, size: int | None
) -> tuple[np.ndarray, np.ndarray]:
    """As `rows_at`, but the rows of each window are permuted among themselves, one window after another.

    Window k holds rows borders[k] to borders[k + 1] - 1. `size` None: the end of the text is not known yet, and there is one
    epoch, without an end.
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
    """Part `part` of `parts` of positions [first, first + count), as (first, count): contiguous, sizes differ by at most one.

    Used for processes and, inside one, for micro-batches; a short last step is shared the same way.
    """
    begin, end = count * part // parts, count * (part + 1) // parts
    return first + begin, end - begin
