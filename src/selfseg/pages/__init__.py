"""HTML pages, each one file with nothing outside of it; they are handed what they show.

`comparison`, `concepts` and `masks` fill the template of the same name in `templates/`; the report's is filled by
`selfseg.collection.reporting.report`, which gathers what a run has. `cards` and `shown_path` are for notebooks: small
pieces of HTML by `selfseg.showing`.
"""
