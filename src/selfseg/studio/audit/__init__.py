"""How good is it? `places` draws them and says what the answers mean, `view` is what the page shows of an audit."""

from selfseg.studio.audit.places import Place, Result, draw_places, interval, judge

__all__ = ["Place", "Result", "draw_places", "interval", "judge"]
