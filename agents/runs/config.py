"""The configuration of a training run; the agent's section has the arguments of ``ConcaveQ``."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from icnn_rl.agents.concave_q import ConcaveQ
from icnn_rl.agents.policies import ConcaveQPolicy
from icnn_rl.agents.solver import ACTING, TARGET, SolverSettings
from icnn_rl.runs.configuration import arguments_of, require_at_least, require_positive

# Arguments that are no keys of a configuration.
NO_PLAIN_DATA = {"optimizer_class", "features_extractor_class", "features_extractor_kwargs"}
SET_BY_THE_RUN = {
    *("policy", "env", "seed", "device", "verbose", "tensorboard_log", "_init_setup_model"),
    *("action_noise", "exploration_noise", "exploration_temperature"),  # by the section noise
    "stats_window_size",
}
SET_BY_CONCAVE_Q = {
    *("observation_space", "action_space", "lr_schedule", "normalize_images"),
    *("target_network", "action_l2", "entropy", "solver"),
    *("net_arch", "share_features_extractor"),  # stable-baselines3's names of what has a key
}


@dataclass(frozen=True)
class ConstraintConfig:
    """A limit on the actions, in their units; see ``icnn_rl.envs.constraints``.

    Args:
        kind: ``power`` for Σ |w a| ≤ limit, ``ball`` for ‖a‖₂ ≤ limit, ``ramp`` for a change of at
            most limit a step.
        limit: how much is allowed.
        velocities: under ``power``, the entries of the observation that are the weights w, one for
            each action; none for weights of 1.
    """

    kind: Literal["power", "ball", "ramp"] = "ball"
    limit: float = 1.0
    velocities: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        require_positive("env.constraint.", self, "limit")
        if self.velocities and self.kind != "power":
            raise ValueError(f"env.constraint.velocities are for kind power, not {self.kind}")


@dataclass(frozen=True)
class EnvironmentConfig:
    """The task.

    Args:
        id: of the Gymnasium environment; ``module:Name-v0`` imports the module first.
        kwargs: further arguments of ``gymnasium.make``.
        wrappers: around the task, the innermost first: names of classes in ``gymnasium.wrappers``,
            or ``module.Class``; with arguments, ``{NAME: {ARGUMENT: VALUE}}``.
        n_envs: copies of the environment, stepped together.
        vec_env: where they are stepped: one after the other (``dummy``), or each in a process of
            its own (``subproc``), which pays for slow tasks.
        normalize_observations: whether observations are scaled by their running mean and variance.
        normalize_rewards: whether rewards are scaled by the running deviation of the return.
        reward_scale: factor on the rewards that the agent learns from; returns are reported
            without it.
        constraint: a limit that every action keeps to, in training and after; null for none.
    """

    id: str = "Pendulum-v1"
    kwargs: dict[str, Any] = field(default_factory=dict)
    wrappers: tuple[str | dict[str, Any], ...] = ()
    n_envs: int = 1
    vec_env: Literal["dummy", "subproc"] = "dummy"
    normalize_observations: bool = False
    normalize_rewards: bool = False
    reward_scale: float = 1.0
    constraint: ConstraintConfig | None = None

    def __post_init__(self) -> None:
        require_at_least(1, "env.", self, "n_envs")
        require_positive("env.", self, "reward_scale")


@dataclass(frozen=True)
class PolicyConfig(arguments_of(ConcaveQPolicy, SET_BY_CONCAVE_Q | NO_PLAIN_DATA)):  # type: ignore[misc]
    """The critics and their optimiser: the arguments of ``ConcaveQPolicy``."""


@dataclass(frozen=True)
class AgentConfig(arguments_of(ConcaveQ, SET_BY_THE_RUN | NO_PLAIN_DATA)):  # type: ignore[misc]
    """The arguments of ``ConcaveQ``.

    Args:
        learning_rate: of the critics, at the beginning.
        learning_rate_end_factor: share of the learning rate that is left at the last step, on a
            straight line from the beginning; 1 for a constant rate.
        train_freq: steps between updates.
        policy_kwargs: the critics and their optimiser.
        replay_buffer_class: a name in ``stable_baselines3``, such as ``HerReplayBuffer`` (or
            ``her``) for tasks with goals, or ``module.Class``.
        replay_buffer_kwargs: its arguments.
    """

    learning_rate: float = 1e-3
    learning_rate_end_factor: float = 1.0
    train_freq: int = 1
    policy_kwargs: PolicyConfig = field(default_factory=PolicyConfig)
    replay_buffer_class: str | None = None
    replay_buffer_kwargs: dict[str, Any] = field(default_factory=dict)
    solver: SolverSettings = TARGET
    acting_solver: SolverSettings = ACTING

    def __post_init__(self) -> None:
        require_at_least(0, "agent.", self, "learning_rate", "learning_rate_end_factor")


@dataclass(frozen=True)
class NoiseConfig:
    """Exploration, in actions scaled to [-1, 1].

    Args:
        kind: Gaussian noise, or Ornstein-Uhlenbeck x ← x - theta x + sigma N(0, 1); or
            ``boltzmann``, of ConcaveQ alone, for actions drawn from exp(Q / temperature).
        sigma: standard deviation of the noise.
        theta: rate at which Ornstein-Uhlenbeck noise returns to 0.
        temperature: of ``boltzmann``, in units of Q.
    """

    kind: Literal["gaussian", "ou", "boltzmann"] = "gaussian"
    sigma: float = 0.2
    theta: float = 0.15
    temperature: float = 0.5

    def __post_init__(self) -> None:
        require_at_least(0, "noise.", self, "sigma", "theta")
        require_positive("noise.", self, "temperature")


@dataclass(frozen=True)
class TrainingConfig:
    """How long to train, and what to write down on the way. All periods are in steps.

    Args:
        steps: steps of the environments, in total.
        log_every: period of the rows of progress.csv and TensorBoard.
        evaluate_every: period of the evaluations.
        evaluation_episodes: episodes per evaluation.
        evaluation_envs: environments that are open at once for an evaluation, beside those of
            training. With 0 there are none: episodes are played in the one environment of
            training, between two of its own, as they are where it cannot be opened twice.
        evaluation_max_steps: at which an episode of an evaluation is cut, where the task has no
            time limit of its own.
        checkpoint_every: period of the checkpoints; there is also one before each evaluation, and
            one at the end.
        callbacks: further ones, called at each step: names of classes in
            ``stable_baselines3.common.callbacks``, or ``module.Class``, with arguments as for
            ``env.wrappers``. Checkpoints do not hold their state.
        video: whether to film the trained agent where the task renders.
    """

    steps: int = 100_000
    log_every: int = 1000
    evaluate_every: int = 5000
    evaluation_episodes: int = 10
    evaluation_envs: int = 10
    evaluation_max_steps: int = 10_000
    checkpoint_every: int = 25_000
    callbacks: tuple[str | dict[str, Any], ...] = ()
    video: bool = True

    def __post_init__(self) -> None:
        counts = ("steps", "evaluation_episodes", "evaluation_max_steps")
        periods = ("log_every", "evaluate_every", "checkpoint_every")
        require_at_least(1, "training.", self, *counts, *periods)
        require_at_least(0, "training.", self, "evaluation_envs")


@dataclass(frozen=True)
class Config:
    """A training run.

    Args:
        env: the task.
        algorithm: ConcaveQ, or another one to compare it with.
        agent: the arguments of ConcaveQ.
        baseline: the arguments of another algorithm, as stable-baselines3 calls them.
        noise: exploration of ConcaveQ, DDPG and TD3; the others' policies are stochastic.
        training: how long, and what to write down.
        seed: of every random generator.
        threads: of PyTorch; small networks are fastest, and repeatable, on one.
        device: where the networks live.
        track: whether metrics go to Weights & Biases, offline without a login.
    """

    RENAMED: ClassVar[dict[str, str]] = {  # keys of version 0.1
        "agent.network": "agent.policy_kwargs",
        "agent.solver.method": "agent.solver.name",
        "agent.acting_solver.method": "agent.acting_solver.name",
        "agent.beta1": "agent.policy_kwargs.optimizer_kwargs.betas",
        "agent.weight_decay": "agent.policy_kwargs.optimizer_kwargs.weight_decay",
    }

    env: EnvironmentConfig = field(default_factory=EnvironmentConfig)
    algorithm: Literal["concave_q", "ddpg", "td3", "sac", "tqc", "crossq"] = "concave_q"
    agent: AgentConfig = field(default_factory=AgentConfig)
    baseline: dict[str, Any] = field(default_factory=dict)
    noise: NoiseConfig = field(default_factory=NoiseConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    seed: int = 0
    threads: int = 1
    device: str = "auto"
    track: bool = False

    def __post_init__(self) -> None:
        require_at_least(0, "", self, "seed")
        require_at_least(1, "", self, "threads")
        shared = self.env.n_envs == 1 and self.env.vec_env == "dummy"
        if self.training.evaluation_envs == 0 and not shared:
            raise ValueError(
                "training.evaluation_envs: expected at least 1 where env.n_envs is more than 1 or "
                "env.vec_env is subproc, got 0"
            )
        if self.baseline and self.algorithm == "concave_q":
            raise ValueError("baseline is for the other algorithms; concave_q has its own: agent")
        if self.noise.kind == "boltzmann" and self.algorithm != "concave_q":
            raise ValueError(f"noise.kind: boltzmann is for concave_q alone, not {self.algorithm}")
