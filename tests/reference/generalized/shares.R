# R squared of generalised models by the formulas of Nakagawa, Johnson & Schielzeth (2017), as performance::r2_nakagawa has
# them: the mean is that of the model with an intercept alone, exp(b0 + s^2/2). Run here, it writes shares.json.
suppressMessages({library(lme4); library(glmmTMB); library(jsonlite)})
d <- read.csv("rows.csv")
shares <- function(fixed, random, own) c(marginal = fixed, conditional = fixed + random) / (fixed + random + own)
fixed_part <- function(X, b) var(as.vector(X %*% b))

cbpp <- glmer(cbind(incidence, size - incidence) ~ period + (1 | herd), lme4::cbpp, binomial)
out <- list(cbpp = shares(fixed_part(getME(cbpp, "X"), fixef(cbpp)), VarCorr(cbpp)$herd[1], pi^2 / 3))

of_log_link <- function(formula, family, relative) {
  fit <- glmmTMB(formula, d, family)
  null <- update(fit, . ~ 1 + (1 | g))
  mu <- exp(fixef(null)$cond[[1]] + VarCorr(null)$cond$g[1] / 2)
  cv2 <- relative(mu, sigma(fit))
  own <- c(lognormal = log1p(cv2), trigamma = trigamma(1 / cv2), delta = cv2)
  fixed <- fixed_part(getME(fit, "X"), fixef(fit)$cond)
  lapply(own, function(v) shares(fixed, VarCorr(fit)$cond$g[1], v))
}
out$poisson <- of_log_link(some ~ x + (1 | g), poisson(), function(mu, s) 1 / mu)
out$nbinom2 <- of_log_link(count ~ x + (1 | g), nbinom2(), function(mu, s) 1 / mu + 1 / s)
out$nbinom1 <- of_log_link(count ~ x + (1 | g), nbinom1(), function(mu, s) (1 + s) / mu)
out$gamma <- of_log_link(positive ~ x + (1 | g), Gamma("log"), function(mu, s) s^2)
write(toJSON(out, digits = 10, auto_unbox = TRUE, pretty = TRUE), "shares.json")
