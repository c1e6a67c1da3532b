"""Lists of images that are too long to be held in memory: `lines` of a text file by number, and `images` of them."""
