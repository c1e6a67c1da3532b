import pytest
import torch
import torch.nn.functional as F

from selfseg.ops import resized_argmax as module
from selfseg.ops.resized_argmax import resized_argmax


@pytest.mark.parametrize("size", [(5, 7), (40, 56), (41, 50), (3, 90), (1, 1)])
@pytest.mark.parametrize("held", [100, 1 << 20])
def test_it_is_a_bilinear_resize_and_then_the_maximum(
    size: tuple[int, int], held: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(module._SCORES, "cpu", held)
    scores = torch.randn(5, 7, 11, generator=torch.Generator().manual_seed(0))
    whole = F.interpolate(scores.permute(2, 0, 1)[None], size, mode="bilinear", align_corners=False)[0]
    found = resized_argmax(scores, size)
    assert found.shape == size
    best, chosen = whole.amax(0), whole.gather(0, found[None])[0]
    torch.testing.assert_close(chosen, best, rtol=0, atol=1e-5)
    assert (found == whole.argmax(0)).float().mean() > 0.99
