"""A whole session with mixedlm: import, read, fit, print the table; the last line is -2 log L."""

import sys

import mixedlm
import pandas

csv, formula = sys.argv[1:]
result = mixedlm.lmer(formula, pandas.read_csv(csv))
print(result.summary())
print(repr(float(mixedlm.REMLcrit(result))))
