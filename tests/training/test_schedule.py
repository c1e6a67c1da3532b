import pytest

from selfseg.training.recipe import OptimizerConfig
from selfseg.training.schedule import warmup_cosine, warmup_poly


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
