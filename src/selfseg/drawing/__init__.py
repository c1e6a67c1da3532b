"""Pictures and charts of what one hands it; nothing here knows a run.

`pictures` (overlays, outlines, colours, vectors as colours), `figures` (with a caption, for a page), `charts` (SVG),
`result_charts` (results as tables and curves), `contact_sheet`.
"""
