# References for generalised models: glmmTMB's optimum polished by repeated nlminb, standard errors from the Jacobian of
# its exact gradient there; ordinal::clmm for ratings. Run here, it writes rows.csv and fits.json.
suppressMessages({library(glmmTMB); library(ordinal); library(jsonlite); library(numDeriv)})
set.seed(20)
groups <- 30; size <- 12; n <- groups * size
g <- rep(sprintf("g%02d", 1:groups), each = size)
x <- round(rnorm(n), 3); z <- round(rep(rnorm(groups), each = size), 3)
b0 <- rep(rnorm(groups), each = size); b1 <- rep(rnorm(groups), each = size)
eta <- 0.4 + 0.5 * x + 0.7 * b0
d <- data.frame(g, x, z, exposure = round(runif(n, 0.5, 3), 2), m = sample(4:9, n, TRUE))
d$binary <- rbinom(n, 1, pnorm(0.2 + 0.5 * x + 0.8 * b0 + 0.5 * b1 * x))
d$successes <- rbinom(n, d$m, rbeta(n, 6 * plogis(eta - 0.5), 6 * plogis(0.5 - eta)))
d$count <- rnbinom(n, mu = d$exposure * exp(eta), size = 1.5)
d$zeros <- ifelse(runif(n) < plogis(-1 + 0.6 * x), 0, rpois(n, exp(eta + 0.5)))
d$some <- pmax(rpois(n, exp(eta + 0.3)), 1)
d$positive <- signif(rgamma(n, shape = 3, scale = exp(eta) / 3), 6)
d$share <- pmin(pmax(round(rbeta(n, 5 * plogis(eta), 5 * plogis(-eta)), 5), 1e-5), 1 - 1e-5)
d$rating <- cut(eta + rlogis(n), c(-Inf, -1, 0.3, 1.5, Inf), labels = c("never", "rarely", "often", "always"))
write.csv(d, "rows.csv", row.names = FALSE, quote = FALSE)
d$thinned <- d$count * d$binary
d$rating <- factor(d$rating, levels = c("never", "rarely", "often", "always"), ordered = TRUE)

polished <- function(fit) {
  obj <- fit$obj; par <- fit$fit$par
  for (i in 1:20) par <- nlminb(par, obj$fn, obj$gr, control = list(rel.tol = 1e-15, x.tol = 1e-12, eval.max = 2000, iter.max = 2000))$par
  for (i in 1:4) par <- par - solve(jacobian(obj$gr, par), as.vector(obj$gr(par)))
  se <- sqrt(diag(solve(jacobian(obj$gr, par))))
  list(deviance = 2 * as.numeric(obj$fn(par)), names = names(par), par = as.vector(par), se = as.vector(se))
}
T <- function(...) polished(glmmTMB(..., data = d))
out <- list(
  bernoulli_probit_slope = T(binary ~ x + (1 + x | g), family = binomial("probit")),
  bernoulli_cloglog = T(binary ~ x + (1 | g), family = binomial("cloglog")),
  binomial_logit = T(cbind(successes, m - successes) ~ x + z + (1 | g), family = binomial()),
  betabinomial = T(cbind(successes, m - successes) ~ x + z + (1 | g), family = betabinomial()),
  poisson_offset = T(count ~ x + offset(log(exposure)) + (1 | g), family = poisson()),
  nbinom2 = T(count ~ x + offset(log(exposure)) + (1 | g), family = nbinom2()),
  nbinom1 = T(count ~ x + offset(log(exposure)) + (1 | g), family = nbinom1()),
  nbinom2_dispersion = T(count ~ x + offset(log(exposure)) + (1 | g), dispformula = ~ x, family = nbinom2()),
  zero_inflated_poisson = T(zeros ~ x + (1 | g), ziformula = ~ x, family = poisson()),
  zero_inflated_nbinom2 = T(thinned ~ x + offset(log(exposure)) + (1 | g), ziformula = ~ z, family = nbinom2()),
  hurdle_poisson = T(zeros ~ x + (1 | g), ziformula = ~ x, family = truncated_poisson()),
  truncated_poisson = T(some ~ x + (1 | g), family = truncated_poisson()),
  gamma_log = T(positive ~ x + (1 | g), family = Gamma("log")),
  beta_logit = T(share ~ x + (1 | g), family = beta_family()),
  beta_dispersion = T(share ~ x + (1 | g), dispformula = ~ x, family = beta_family()),
  gaussian_log = T(positive ~ x + (1 | g), family = gaussian("log"))
)
clm_case <- function(link) {
  fit <- clmm(rating ~ x + z + (1 | g), data = d, link = link, control = clmm.control(gradTol = 1e-9, maxIter = 500))
  list(deviance = -2 * as.numeric(logLik(fit)), names = names(coef(fit)), par = as.vector(coef(fit)),
       se = as.vector(sqrt(diag(vcov(fit)))[seq_along(coef(fit))]), sd = as.numeric(attr(VarCorr(fit)$g, "stddev")))
}
for (link in c("logit", "probit", "cloglog")) out[[paste0("ordinal_", link)]] <- clm_case(link)
out$versions <- list(R = R.version.string, glmmTMB = as.character(packageVersion("glmmTMB")), ordinal = as.character(packageVersion("ordinal")))
write(toJSON(out, digits = 16, auto_unbox = TRUE, pretty = TRUE), "fits.json")
