"""Two peaks: what a maximum of two concave functions finds and a single one misses."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from scipy.optimize import LinearConstraint, lsq_linear, minimize

from icnn_rl.envs import BimodalBandit, Detour, returns
from icnn_rl.envs.detour import DISTANCE, EFFORT, LANE, NARROW, STEPS, TOLL, WIDE

ACTIONS = np.linspace(-1, 1, 401)


def quadratic_choice(q: npt.NDArray[np.float64]) -> float:
    """The maximum of the quadratic nearest to q on uniform actions."""
    curvature, slope, _ = np.polyfit(ACTIONS, q, 2)
    assert curvature < 0
    return float(np.clip(-slope / (2 * curvature), -1, 1))


def concave_choice(q: npt.NDArray[np.float64]) -> float:
    """The maximum of the concave function nearest to q: linear, less hinges of any knots."""
    hinges = -np.abs(ACTIONS[:, None] - np.linspace(-1, 1, 81)[1:-1])
    features = np.column_stack([np.ones_like(ACTIONS), ACTIONS, hinges])
    lower = np.r_[-np.inf, -np.inf, np.zeros(hinges.shape[1])]
    fit = features @ lsq_linear(features, q, (lower, np.inf)).x
    return float(ACTIONS[fit.argmax()])


def q_of(env: BimodalBandit | Detour, x: list[float]) -> npt.NDArray[np.float64]:
    return env.optimal_q(np.broadcast_to(x, (len(ACTIONS), len(x))), ACTIONS[:, None])


def peaks(q: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return ACTIONS[1:-1][(q[1:-1] > q[:-2]) & (q[1:-1] > q[2:])]


def test_the_bandit_pays_what_it_says() -> None:
    env = BimodalBandit()
    env.reset(seed=0)
    for u in (-0.5, 0.0, 0.5):
        action = np.array([u])
        rewards = [env.step(action)[1] for _ in range(400)]
        error = 3 * np.std(rewards) / np.sqrt(400)
        assert np.mean(rewards) == pytest.approx(env.optimal_q(np.zeros(1), action), abs=error)


def test_the_bandit_has_two_peaks_and_the_right_one_is_best() -> None:
    env = BimodalBandit()
    q = q_of(env, [0.0])
    np.testing.assert_allclose(peaks(q), [-0.5, 0.5])
    assert ACTIONS[q.argmax()] == pytest.approx(env.optimal_action(np.zeros(1))[0])
    assert q.max() == pytest.approx(env.optimal_value(np.zeros(1)))


def test_one_concave_function_picks_a_bad_arm() -> None:
    q = q_of(BimodalBandit(), [0.0])
    assert -0.5 < quadratic_choice(q) < 0.5
    assert np.interp(quadratic_choice(q), ACTIONS, q) < 0
    assert np.interp(concave_choice(q), ACTIONS, q) < 0


@pytest.mark.parametrize("x", [-0.2, -0.1, 0.0, 0.1, 0.2])
def test_one_concave_function_drives_into_the_obstacle(x: float) -> None:
    env = Detour()
    q = q_of(env, [x, 0.0])
    left, right = peaks(q)
    choice = quadratic_choice(q)
    assert left < choice < right
    assert np.interp(choice, ACTIONS, q) < q.max() - 1
    straight = returns(env, lambda _: np.zeros(1), range(5))
    assert (straight < returns(env, env.optimal_action, range(5)) - 1).all()


def test_left_is_better() -> None:
    env = Detour()
    q = q_of(env, [0.0, 0.0])
    assert env.optimal_action(np.zeros(2))[0] < 0
    assert q[ACTIONS < 0].max() > q[ACTIONS > 0].max() + 0.5


def test_behind_the_obstacle_q_is_concave() -> None:
    for time in range(1, STEPS):
        q = q_of(Detour(), [0.3, time / STEPS])
        assert (np.diff(q, 2) < 1e-6).all()


@pytest.mark.parametrize("x", [-0.2, 0.0, 0.13])
def test_the_grid_finds_the_better_of_two_convex_programs(x: float) -> None:
    def cost(u: npt.NDArray[np.float64], side: int) -> float:
        moved = x + np.cumsum(u)
        miss = (moved[0] - side * DISTANCE) ** 2
        passing = WIDE * miss + TOLL if side > 0 else NARROW * miss
        return float(EFFORT * u @ u + LANE * moved @ moved + passing)

    sides = [
        minimize(cost, np.zeros(STEPS), side, constraints=LinearConstraint(np.eye(STEPS), -1, 1))
        for side in (-1, 1)
    ]
    best = min(sides, key=lambda result: result.fun)
    env = Detour()
    start = np.array([x, 0.0])
    assert env.optimal_value(start) == pytest.approx(-best.fun, abs=1e-4)
    assert env.optimal_action(start)[0] == pytest.approx(best.x[0], abs=5e-3)


def test_a_finer_grid_changes_nothing_and_the_policy_returns_the_value() -> None:
    env = Detour()
    starts = np.array([env.reset(seed=seed)[0] for seed in range(20)], np.float64)
    values = env.optimal_value(starts)
    np.testing.assert_allclose(Detour(points=4001).optimal_value(starts), values, atol=1e-4)
    np.testing.assert_allclose(returns(env, env.optimal_action, range(20)), values, atol=1e-4)
