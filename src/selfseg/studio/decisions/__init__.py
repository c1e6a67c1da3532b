"""A person's decisions: the log that keeps them, and the state that they amount to.

Begin at `log`, the file and its verbs. `kinds` lists what a decision may say, `history` explains undo and redo, `fold`
takes decisions in, `state` is what comes out.
"""

from selfseg.studio.decisions.history import Entry
from selfseg.studio.decisions.log import DecisionLog
from selfseg.studio.decisions.state import Answer, AuditRound, Click, ImageId, Named, Split, State

__all__ = ["Answer", "AuditRound", "Click", "DecisionLog", "Entry", "ImageId", "Named", "Split", "State"]
