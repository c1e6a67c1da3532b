"""The points of a collection that are grouped: drawn pixels, in memory or in parts."""
