"""Greedy assignment of one column to each row of a sparse matrix, for all events of a chunk at once."""

import numpy as np
import numpy.typing as npt
from scipy import sparse

from mlpf.data.flat_tables import FloatArray, IntArray


def leading_rows(row: npt.NDArray, col: npt.NDArray, weight: FloatArray, num_cols: int) -> IntArray:
    """Return for each column the row with the largest weight.

    Args:
        row: [L] row of each entry.
        col: [L] its column.
        weight: [L] its weight.
        num_cols: columns N.

    Returns:
        [N] rows, -1 = the column has no entry; the lower row wins a tie.
    """
    largest = np.full(num_cols, -np.inf)
    np.maximum.at(largest, col, weight)
    leads = weight == largest[col]
    leading = np.full(num_cols, np.iinfo(np.int64).max)
    np.minimum.at(leading, col[leads], row[leads])
    return np.where(leading == np.iinfo(np.int64).max, -1, leading)


def choose_in_turn(wishes: sparse.coo_array, queue: IntArray) -> IntArray:
    """Assign each row, in the order of a queue, its best column that is still free.

    This is the deferred acceptance of Gale and Shapley (1962), without a loop over rows. In each round every
    row without a column proposes to the best column that has not refused it. Each column keeps the proposal
    of the row that is first in the queue. All columns prefer the same order, so there is only one stable
    matching: that of the loop over the queue.

    Args:
        wishes: [P, N], no duplicate entries. A row prefers larger entries, and of equal ones the lower
            column.
        queue: participating rows, first one first.

    Returns:
        [P] columns, -1 = none.
    """
    num_rows, num_cols = wishes.shape
    place = np.full(num_rows, -1, dtype=np.int64)
    place[queue] = np.arange(len(queue))
    takes_part = place[wishes.row] >= 0
    row, col, weight = wishes.row[takes_part], wishes.col[takes_part], wishes.data[takes_part]
    order = np.lexsort((col, -weight, row))
    row, col = row[order], col[order]
    wish = np.searchsorted(row, np.arange(num_rows))
    end = np.searchsorted(row, np.arange(num_rows), side="right")

    nobody = len(queue)
    holder = np.full(num_cols, nobody, dtype=np.int64)
    asking = queue[wish[queue] < end[queue]]
    while len(asking):
        wanted = col[wish[asking]]
        before = holder[wanted]
        np.minimum.at(holder, wanted, place[asking])
        won = holder[wanted] == place[asking]
        asking = np.concatenate([asking[~won], queue[before[won & (before < nobody)]]])
        wish[asking] += 1
        asking = asking[wish[asking] < end[asking]]

    chosen = np.full(num_rows, -1, dtype=np.int64)
    taken = np.flatnonzero(holder < nobody)
    chosen[queue[holder[taken]]] = taken
    return chosen
