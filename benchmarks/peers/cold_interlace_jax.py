"""A whole session with this package: import, read, fit, print the table; the last line is -2 log
L.
"""

import sys

import pandas

import interlace_jax as interlace

csv, formula = sys.argv[1:]
result = interlace.fit(formula, pandas.read_csv(csv))
print(result.summary())
print(repr(float(result.deviance)))
