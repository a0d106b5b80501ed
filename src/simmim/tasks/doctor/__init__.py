"""The doctor: what is in a data set, what will not work, what to set. Trains nothing.

data ──► sample ──► problems of images ──┐
                                         ├──► by weight, with cures ──► a recipe, the command
recipe ──► grid, AvgDist, a step tried ──┘
"""
