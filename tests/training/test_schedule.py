import pytest

from selfseg.training.schedule import warmup_cosine


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
