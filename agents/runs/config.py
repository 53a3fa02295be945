"""The parts of a training run's configuration, with the modern recipe as defaults."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from icnn_rl.runs.configuration import require_at_least, require_positive


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
        n_envs: copies of the environment, stepped together.
        normalize_observations: whether observations are scaled by their running mean and variance.
        normalize_rewards: whether rewards are scaled by the running deviation of the return.
        reward_scale: factor on the rewards that the agent learns from; returns are reported
            without it.
        constraint: a limit that every action keeps to, in training and after; null for none.
    """

    id: str = "Pendulum-v1"
    kwargs: dict[str, Any] = field(default_factory=dict)
    n_envs: int = 1
    normalize_observations: bool = False
    normalize_rewards: bool = False
    reward_scale: float = 1.0
    constraint: ConstraintConfig | None = None

    def __post_init__(self) -> None:
        require_at_least(1, "env.", self, "n_envs")
        require_positive("env.", self, "reward_scale")


@dataclass(frozen=True)
class NetworkConfig:
    """The critics.

    Args:
        context: widths of the path on the observation.
        convex: widths of the path on the action, where there is one.
        activation: of the convex path.
        reads: whether all of the convex path reads the last level of the context, or each of its
            layers the level aligned with it.
        form: of the function of the action: any concave one, or a quadratic (NAF).
        n_critics: networks in the ensemble.
        modes: concave functions whose maximum a critic is.
        dueling: whether a head gives the state's value, and the rest only what an action loses; by
            default where there is one mode.
        norm: of the path on the observation: LayerNorm, batch renormalisation or none.
        nonnegativity: how the weights of the convex path are kept non-negative.
    """

    context: tuple[int, ...] = (256, 256)
    convex: tuple[int, ...] = (64,)
    activation: str = "squareplus"
    reads: Literal["last", "aligned"] = "last"
    form: Literal["picnn", "quadratic"] = "picnn"
    n_critics: int = 2
    modes: int = 1
    dueling: bool | None = None
    norm: Literal["layer", "batch", "none"] = "layer"
    nonnegativity: Literal["projection", "softplus"] = "projection"

    def __post_init__(self) -> None:
        require_at_least(1, "agent.network.", self, "n_critics", "modes")


@dataclass(frozen=True)
class SolverConfig:
    """How precisely an action is solved for.

    Args:
        method: solver of ``icnn_rl.minimize``.
        tol: certified gap, in units of Q, at which an action is good enough.
        max_evaluations: of the critics, per action; Newton's method, which solves for smooth
            critics, takes three on the mean, while piecewise-linear ones need twenty and more.
    """

    method: Literal["auto", "bundle", "newton", "lp"] = "auto"
    tol: float = 1e-2
    max_evaluations: int = 10


@dataclass(frozen=True)
class AgentConfig:
    """The arguments of ``ConcaveQ``.

    Args:
        learning_rate: of Adam, at the beginning.
        learning_rate_end_factor: what of it is left at the last step, on a straight line from the
            beginning; 1 for a constant rate.
        beta1: of Adam, the decay of its mean gradient.
        buffer_size: transitions that are kept.
        learning_starts: random steps before the first update.
        batch_size: transitions per update.
        tau: step of the target networks towards the critics; with 1 there are none.
        gamma: discount factor.
        train_freq: steps between updates.
        gradient_steps: updates at a time; -1 for as many as there were steps.
        n_steps: steps of the return in the TD target.
        target_noise: standard deviation of the noise on the target's action.
        target_noise_clip: largest absolute value of that noise.
        action_l2: weight of the greedy action's squared norm.
        entropy: weight of the action's entropy.
        td_clip: largest distance of the TD target from Q(s, a); null for no limit.
        weight_decay: L2 penalty, as Adam's ``weight_decay``.
        network: the critics.
        solver: precision of the greedy actions of updates.
        acting_solver: precision of the actions taken.
        compile: whether on CUDA an update is recorded once and launched as one graph, where it can.
    """

    learning_rate: float = 1e-3
    learning_rate_end_factor: float = 0.05
    beta1: float = 0.9
    buffer_size: int = 1_000_000
    learning_starts: int = 1000
    batch_size: int = 256
    tau: float = 0.005
    gamma: float = 0.99
    train_freq: int = 1
    gradient_steps: int = 1
    n_steps: int = 1
    target_noise: float = 0.0
    target_noise_clip: float = 0.5
    action_l2: float = 0.0
    entropy: float = 0.0
    td_clip: float | None = None
    weight_decay: float = 0.0
    network: NetworkConfig = field(default_factory=NetworkConfig)
    solver: SolverConfig = field(default_factory=SolverConfig)
    acting_solver: SolverConfig = field(
        default_factory=lambda: SolverConfig(tol=1e-4, max_evaluations=200)
    )
    compile: bool = True

    def __post_init__(self) -> None:
        positive = ("buffer_size", "batch_size", "train_freq", "n_steps")
        require_at_least(1, "agent.", self, *positive)
        if self.gradient_steps != -1:
            require_at_least(1, "agent.", self, "gradient_steps")
        rates = ("learning_rate", "learning_rate_end_factor", "beta1", "learning_starts")
        weights = ("weight_decay", "action_l2", "entropy", "target_noise")
        require_at_least(0, "agent.", self, *rates, *weights)


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
        checkpoint_every: period of the checkpoints; there is always one at the end.
        video: whether to film the trained agent where the task renders.
    """

    steps: int = 100_000
    log_every: int = 1000
    evaluate_every: int = 5000
    evaluation_episodes: int = 10
    checkpoint_every: int = 25_000
    video: bool = True

    def __post_init__(self) -> None:
        periods = ("log_every", "evaluate_every", "checkpoint_every")
        require_at_least(1, "training.", self, "steps", "evaluation_episodes", *periods)


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
        if self.baseline and self.algorithm == "concave_q":
            raise ValueError("baseline is for the other algorithms; concave_q has its own: agent")
        if self.noise.kind == "boltzmann" and self.algorithm != "concave_q":
            raise ValueError(f"noise.kind: boltzmann is for concave_q alone, not {self.algorithm}")
