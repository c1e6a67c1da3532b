"""The page that shows a run, and what stands on it.

`report` gathers it; `health` answers "is it learning?" from the log, `what_it_sees` draws the same images as the run
sees them, `facts` are the lines about how it was made and what comes next.
"""
