import pytest

from selfseg.errors import ConfigError
from selfseg.training.recipe import OptimizerConfig
from selfseg.training.schedule import warmup_cosine, warmup_poly, warmup_steps


def test_warm_up_is_linear_and_the_end_is_exact() -> None:
    assert warmup_cosine(0.01, 0.3, 0.02, 0.0003) == pytest.approx(0.15)
    assert warmup_cosine(0.02, 0.3, 0.02, 0.0003) == pytest.approx(0.3)
    assert warmup_cosine(1.0, 0.3, 0.02, 0.0003) == pytest.approx(0.0003)
    assert warmup_cosine(0.51, 0.3, 0.02, 0.0) == pytest.approx(0.15)


def test_no_warm_up_starts_at_the_peak() -> None:
    assert warmup_cosine(0.0, 1.0, 0.0, 0.0) == pytest.approx(1.0)


def test_it_only_falls_after_the_warm_up() -> None:
    values = [warmup_cosine(i / 100, 1.0, 0.1, 0.001) for i in range(10, 101)]
    assert values == sorted(values, reverse=True)


def test_poly_is_deeplabs_after_a_linear_warm_up() -> None:
    assert [warmup_poly(p, 0.004, 0.0, 0.0) for p in (0.0, 0.25, 1.0)] == pytest.approx([0.004, 0.004 * 0.75**0.9, 0.0])
    assert warmup_poly(0.05, 1.0, 0.1, 0.2) == pytest.approx(0.5)
    assert warmup_poly(0.55, 1.0, 0.1, 0.2, power=1.0) == pytest.approx(0.6)
    values = [warmup_poly(i / 100, 1.0, 0.1, 0.001) for i in range(10, 101)]
    assert values == sorted(values, reverse=True)


@pytest.mark.parametrize(("schedule", "middle"), [("cosine", 0.5), ("poly", 0.5**0.9)])
def test_an_optimizer_has_its_rate_from_progress_and_batch(schedule: str, middle: float) -> None:
    config = OptimizerConfig(base_lr=0.1, reference_batch=16, schedule=schedule, warmup=0.0, final=0.0)  # type: ignore[arg-type]
    assert config.rate(0.5, 32) == pytest.approx(0.2 * middle)


def test_steps_are_a_tenth_at_each_milestone() -> None:
    config = OptimizerConfig(
        base_lr=0.03, reference_batch=256, schedule="steps", warmup=0.0, milestones=(120 / 200, 160 / 200)
    )
    epochs = (1, 119, 121, 159, 161, 200)
    rates = [config.rate(epoch / 200, 256) for epoch in epochs]
    assert rates == pytest.approx([0.03, 0.03, 0.003, 0.003, 0.0003, 0.0003])
    assert warmup_steps(0.05, 1.0, 0.1, (0.5,)) == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("schedule", "milestones"), [("steps", ()), ("cosine", (0.5,)), ("steps", (0.5, 1.0)), ("steps", (0.0,))]
)
def test_milestones_belong_to_steps(schedule: str, milestones: tuple[float, ...]) -> None:
    with pytest.raises(ConfigError, match=r"milestones must be shares of the training between 0 and 1"):
        OptimizerConfig(schedule=schedule, milestones=milestones)  # type: ignore[arg-type]
