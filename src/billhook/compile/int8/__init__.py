"""Networks in 8 bits: ranges of values from data, grids for them, and weights in whole numbers.

histogram       counts of a value's numbers, in bounded memory
ranges          from counts to the range that a grid shall cover
calibration     the data, and the ranges of all values of a network on them
choose          which operators compute in integers
grids           one grid for values that share their numbers
weights         weights in whole multiples of a scale
quantise        puts all that into the network
agreement       does the engine compute just that?
"""
