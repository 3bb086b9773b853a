# Seconds of lmerTest's Satterthwaite, pbkrtest's Kenward-Roger and lme4's profile intervals, as JSON.
suppressMessages({ library(lme4); library(lmerTest); library(pbkrtest); library(jsonlite) })
folder <- commandArgs(TRUE)[1]
formulas <- list(sleepstudy = Reaction ~ Days + (Days | Subject),
                 crossed = rt ~ condition + (condition | subject) + (1 | item))
seconds <- function(call, times) median(sapply(seq_len(times), function(i) system.time(call())[["elapsed"]]))
result <- lapply(names(formulas), function(name) {
  fit <- suppressMessages(lme4::lmer(formulas[[name]], read.csv(file.path(folder, paste0(name, ".csv")))))
  list(`Satterthwaite df` = seconds(function() coef(summary(as_lmerModLmerTest(fit))), 5),
       `Kenward-Roger df` = seconds(function() {
         V <- vcovAdj(fit)
         for (j in 1:2) Lb_ddf(diag(2)[j, ], vcov(fit), V)
       }, 3),
       `profile intervals` = seconds(function() suppressWarnings(suppressMessages(confint(fit, quiet = TRUE))), 1))
})
cat(toJSON(setNames(result, names(formulas)), auto_unbox = TRUE, digits = 6))
