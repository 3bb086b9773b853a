# Reference numbers of influence and prediction: Rscript influence.R > influence.json   (lme4 1.1.31)
#
# Deletions are refits by update() with a tight optimiser; influence.merMod does the same with a loose one, and is
# asked for its dfbetas and Cook's distances, whose definitions are tested. Standard errors of predictions are written
# out from Henderson's mixed model equations, dense.
suppressMessages({library(lme4); library(jsonlite)})

tight <- lmerControl(optimizer = "bobyqa", optCtrl = list(rhobeg = 0.01, rhoend = 1e-9, maxfun = 1e5),
                     check.conv.singular = "ignore", check.conv.grad = "ignore", check.conv.hess = "ignore")
read <- function(name) read.csv(file.path("data", paste0(name, ".csv")), stringsAsFactors = TRUE)

without <- function(formula, data, keep) {
  fit <- lmer(formula, data[keep, ], control = tight)
  list(beta = unname(fixef(fit)), vcov = as.matrix(vcov(fit)), varcov = as.data.frame(VarCorr(fit))$vcov)
}
deletions <- function(formula, data, groups) {
  found <- lapply(unique(groups), function(g) without(formula, data, groups != g))
  list(label = as.character(unique(groups)), beta = lapply(found, `[[`, "beta"),
       vcov = lapply(found, `[[`, "vcov"), varcov = lapply(found, `[[`, "varcov"))
}

# h' H^-1 h sigma^2 for rows h = [x; z] of Henderson's equations
prediction_se <- function(fit, X, Z) {
  W <- Diagonal(x = weights(fit)); s2 <- sigma(fit)^2
  L <- t(getME(fit, "Lambdat")); XX <- getME(fit, "X"); ZL <- getME(fit, "Z") %*% L
  H <- rbind(cbind(t(XX) %*% W %*% XX, t(XX) %*% W %*% ZL),
             cbind(t(ZL) %*% W %*% XX, t(ZL) %*% W %*% ZL + Diagonal(ncol(ZL))))
  h <- cbind(X, as.matrix(Z %*% L))
  sqrt(s2 * rowSums(h * t(as.matrix(solve(H, t(h))))))
}
rows <- function(fit, data) list(
  hat = unname(hatvalues(fit)), cooks = unname(cooks.distance(fit)), pearson = unname(residuals(fit, "pearson")),
  se = prediction_se(fit, getME(fit, "X"), getME(fit, "Z")))

sleep <- read("sleepstudy"); slope <- Reaction ~ Days + (Days | Subject)
fit <- lmer(slope, sleep, control = tight)
out <- list(sleepstudy = rows(fit, sleep))
out$sleepstudy$by_subject <- deletions(slope, sleep, sleep$Subject)
some <- c(1, 8, 57, 60, 100, 180)
found <- lapply(some, function(i) without(slope, sleep, -i))
out$sleepstudy$by_row <- list(row = some, beta = lapply(found, `[[`, "beta"), vcov = lapply(found, `[[`, "vcov"),
                              varcov = lapply(found, `[[`, "varcov"))
loose <- influence(fit, "Subject")
out$sleepstudy$lme4 <- list(dfbetas = unname(dfbetas(loose)), cooks = unname(cooks.distance(loose)))

pen <- read("penicillin"); crossed <- diameter ~ 1 + (1 | plate) + (1 | sample)
fit <- lmer(crossed, pen, control = tight)
out$penicillin <- c(rows(fit, pen), list(by_plate = deletions(crossed, pen, pen$plate),
                                         by_sample = deletions(crossed, pen, pen$sample)))

w <- read("weighted")
fit <- lmer(y ~ x + (1 | g), w, weights = w, control = tight)
out$weighted_int <- rows(fit, w)
cat(toJSON(out, digits = 12))
