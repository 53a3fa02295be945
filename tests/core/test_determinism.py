"""Compiled code gives the same answer to the last bit, wherever in memory its arrays lie."""

from __future__ import annotations

from itertools import product

import numpy as np

from icnn_rl.kernels.interior_point import NO_MATRIX, Models, minimize_models

ROUNDS = 5


def answer(n: int, m: int, q: int, rows: int, curved: bool) -> bytes:
    """The minimiser of a random model, ``m`` cuts and constraints, and its bound."""
    random = np.random.default_rng(n)
    h, a = random.normal(size=(1, m, n)), random.normal(size=(1, m))
    root = random.normal(size=(1, n, n))
    a[:, :rows] -= 3
    P = root @ root.mT if curved else NO_MATRIX
    p, finite, u = np.zeros((1, n)), np.ones((1, n), np.bool_), np.full((1, n), 1 / n)
    models = Models(h, a, np.ones((1, q, n)), np.ones((1, q)), P, p, finite)
    bound = minimize_models(models, u, rows=rows, accuracy=1e-9)
    return bytes(np.append(u, bound))


def test_answers_do_not_depend_on_where_arrays_lie() -> None:
    problems = list(
        product((3, 5, 8, 10, 13, 17, 24, 40), (4, 9, 20), (0, 1), (0, 2), (False, True))
    )
    expected = {problem: answer(*problem) for problem in problems}
    shuffle = np.random.default_rng(0)
    for _ in range(ROUNDS):  # each in an order of its own, so that memory is reused in other ways
        for k in shuffle.permutation(len(problems)):
            assert answer(*problems[k]) == expected[problems[k]], problems[k]
