"""The compiler: a network becomes a file that billhook's own engine runs, fast where weights are zero.

lower       a captured network becomes operators (`ir`)
passes      rewrites, each checked against `reference`
int8        the network in 8 bits, calibrated on data
layout      where every value lies
pack        instructions and tables (`blocks`, `format`)
engine      C: maps the file, checks it, runs it
library     the engine in this process
session     a compiled network that runs
"""
