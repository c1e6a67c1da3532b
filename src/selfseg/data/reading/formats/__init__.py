"""Files of measured values, of any number of channels, pages and pixels: opened, described and read in windows.

`base` says what such a file can tell and give; each other module opens one family of formats.
"""
