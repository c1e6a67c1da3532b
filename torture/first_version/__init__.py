"""The faults that the first version had: how each is provoked, and how one sees whether it is there."""
