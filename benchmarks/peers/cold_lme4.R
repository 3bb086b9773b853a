# A whole session with lmerTest: load, read, fit, print the table; the last line is -2 log L.

suppressPackageStartupMessages(library(lmerTest))

arguments <- commandArgs(TRUE)
model <- lmer(as.formula(arguments[2]), read.csv(arguments[1], stringsAsFactors = TRUE))
print(summary(model))
cat(format(lme4::REMLcrit(model), digits = 17), "\n", sep = "")
