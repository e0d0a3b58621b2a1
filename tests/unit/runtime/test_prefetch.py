"""Work done ahead of its consumer: in order, bounded, and dropped when no longer needed."""

from concurrent.futures import ThreadPoolExecutor
from threading import Event

import pytest

from cloudcover.runtime.prefetch import prefetch


def test_at_most_so_many_results_are_made_ahead():
    made = []
    with ThreadPoolExecutor(1) as pool:
        results = prefetch(pool, lambda item: made.append(item) or item, range(100), 3)
        assert next(results) == 0
        assert len(made) <= 4
        assert list(results) == list(range(1, 100))


def test_what_nobody_waits_for_is_not_begun():
    made, gate = [], Event()

    def work(item):
        made.append(item)
        return item if item == 0 else gate.wait(10)

    with ThreadPoolExecutor(1) as pool:
        results = prefetch(pool, work, range(100), 3)
        next(results)
        results.close()
        gate.set()
    assert made in ([0], [0, 1])


def test_an_error_of_the_work_reaches_who_waits_for_it():
    with ThreadPoolExecutor(1) as pool, pytest.raises(ZeroDivisionError):
        list(prefetch(pool, lambda item: 1 / item, [1, 0], 3))
