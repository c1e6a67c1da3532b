"""Formats with a file of polygons for each image: YOLO's text and LabelMe's JSON.

Both are found beside the photographs as often as in folders of their own; see each module for the order in which
polygons lie on each other, and what else a format's files may hold.
"""
