"""Two peaks: what a maximum of two concave functions finds and a single one misses."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest
from scipy.optimize import lsq_linear

from icnn_rl.envs import BimodalBandit, Slalom, returns
from icnn_rl.envs.bimodal import BOUND, DISTANCE, EFFORT, LANE, MISS, POSTS

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


def q_of(env: BimodalBandit | Slalom, x: list[float]) -> npt.NDArray[np.float64]:
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


SIDES = {"left": -1, "right": 1}


def states(count: int, passed: int | None = None) -> npt.NDArray[np.float64]:
    """Places on the course, before a post that can be passed on either side."""
    rng = np.random.default_rng(0)
    x, ahead = rng.uniform(-0.5, 0.5, (2, count))
    over = rng.integers(POSTS, size=count) if passed is None else np.full(count, passed)
    return np.column_stack([x, np.clip(x + ahead, -0.5, 0.5), over / POSTS])


def keep(side: int) -> Callable[[npt.NDArray[np.float32]], npt.NDArray[np.float64]]:
    """Every post on the same side."""
    return lambda x: np.clip([x[1] + side * DISTANCE - x[0]], -1, 1)


def test_the_course_pays_what_it_says() -> None:
    env = Slalom()
    (x, post, _), _ = env.reset(seed=0)
    for step, u in enumerate([0.5, -1.0, 0.3, 1.0, 0.2], 1):
        (moved, following, over), reward, ended, _, info = env.step(np.array([u]))
        assert moved == pytest.approx(x + u, abs=1e-6)
        assert info["distance"] == pytest.approx(moved - post, abs=1e-6)
        cost = 0.1 * u**2 + moved**2 + 8 * (abs(moved - post) - 0.5) ** 2
        assert reward == pytest.approx(-cost, abs=1e-5)
        assert over == pytest.approx(step / POSTS)
        assert ended == (step == POSTS)
        x, post = moved, following


def test_the_banks_hold() -> None:
    env = Slalom()
    env.reset(seed=0)
    for _ in range(3):
        (x, *_), *_ = env.step(np.array([1.0]))
    assert x == BOUND


def test_before_the_last_post_the_best_side_is_in_closed_form() -> None:
    env, last = Slalom(), states(50, POSTS - 1)
    x, post = last[:, 0], last[:, 1]
    answers = []
    for side in SIDES.values():
        aim = post + side * DISTANCE
        u = np.clip((MISS * (aim - x) - LANE * x) / (EFFORT + LANE + MISS), -1, 1)
        cost = EFFORT * u**2 + LANE * (x + u) ** 2 + MISS * (x + u - aim) ** 2
        answers.append((-cost, u))
    values, actions = np.array(answers).swapaxes(0, 1)
    np.testing.assert_allclose(env.optimal_value(last), values.max(0), atol=3e-4)
    best = np.take_along_axis(actions, values.argmax(0)[None], 0)[0]
    np.testing.assert_allclose(env.optimal_action(last)[:, 0], best, atol=6e-3)


def test_the_policy_returns_its_value_and_a_finer_grid_changes_nothing() -> None:
    env = Slalom()
    starts = np.array([env.reset(seed=seed)[0] for seed in range(300)], np.float64)
    values = env.optimal_value(starts)
    np.testing.assert_allclose(Slalom(points=301).optimal_value(starts), values, atol=1e-3)
    luck = returns(env, env.optimal_action, range(300)) - values
    assert luck.mean() == pytest.approx(0, abs=3 * luck.std() / np.sqrt(300))


def test_both_sides_are_needed() -> None:
    env, seeds = Slalom(), range(50)
    best = returns(env, env.optimal_action, seeds).mean()
    for side in SIDES.values():
        assert returns(env, keep(side), seeds).mean() < best - 1


def test_one_concave_quadratic_hits_the_post() -> None:
    lost = []
    for state in states(60):
        q = q_of(Slalom(), list(state))
        if len(peaks(q)) == 2:
            left, right = peaks(q)
            choice = quadratic_choice(q)
            assert left < choice < right
            lost.append(q.max() - np.interp(choice, ACTIONS, q))
    assert len(lost) > 30
    assert np.median(lost) > 0.7  # a step


@pytest.mark.parametrize("state", states(6), ids=lambda state: str(state.round(2)))
def test_the_nearest_concave_function_passes_too_wide(state: npt.NDArray[np.float64]) -> None:
    q = q_of(Slalom(), list(state))
    left, right = peaks(q)
    choice = concave_choice(q)
    assert choice < left - 0.05 or choice > right + 0.05
    assert np.interp(choice, ACTIONS, q) < q.max() - 0.15
