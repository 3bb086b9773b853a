# lme4 and lmerTest. Variants: `default`, `noderivs` (calc.derivs = FALSE), `summary` (lmerTest: fit and print the table).
# Started with a spec file and a variant; speaks the protocol of protocol.py.

arguments <- commandArgs(TRUE)
variant <- arguments[2]

for (package in c("jsonlite", "lme4", "lmerTest")) {
  if (!requireNamespace(package, quietly = TRUE)) {
    cat(sprintf('{"missing": "there is no R package %s"}\n', package))
    quit()
  }
}

send <- function(answer) cat(jsonlite::toJSON(answer, auto_unbox = TRUE, digits = NA), "\n", sep = "")
now <- function() as.numeric(Sys.time())
versions <- function(packages) vapply(packages, function(p) as.character(packageVersion(p)), "")

start <- now()
spec <- jsonlite::fromJSON(arguments[1], simplifyVector = FALSE)
data <- read.csv(spec$csv, stringsAsFactors = TRUE)
# R users hold grouping columns as factors; given numbers, lmer would convert them in every timed call.
for (term in spec$random) data[[term[[2]]]] <- factor(data[[term[[2]]]])
formula <- as.formula(spec$formula)

summarised <- function() {
  model <- lmerTest::lmer(formula, data)
  capture.output(print(summary(model)))
  model
}
fit <- switch(variant,
  default = function() lme4::lmer(formula, data),
  noderivs = function() lme4::lmer(formula, data, control = lme4::lmerControl(calc.derivs = FALSE)),
  summary = summarised
)

send(list(
  load_s = now() - start,
  versions = as.list(c(
    R = paste(R.version$major, R.version$minor, sep = "."), versions(c("lme4", "lmerTest", "Matrix")),
    blas = unname(extSoftVersion()["BLAS"]), lapack = paste(La_version(), La_library())
  ))
))

input <- file("stdin", "r")
while (length(line <- readLines(input, n = 1)) > 0) {
  seconds <- numeric(as.integer(line))
  for (i in seq_along(seconds)) {
    start <- now()
    model <- fit()
    seconds[i] <- now() - start
  }
  send(list(
    seconds = I(seconds), deviance = lme4::REMLcrit(model), beta = I(unname(lme4::fixef(model))),
    theta = I(unname(lme4::getME(model, "theta"))), sigma = sigma(model), evaluations = model@optinfo$feval,
    # What lme4 itself warns about; empty without derivatives, which it needs for the check.
    warnings = I(as.character(unlist(model@optinfo$conv$lme4$messages)))
  ))
}
