#!/usr/bin/env Rscript
## Reference results for linear mixed models from lme4, lmerTest, pbkrtest, emmeans and car.
## Usage:  Rscript tests/reference/generate.R OUT [REGEX]
##   OUT    the folder to write to: OUT/data, OUT/cases, OUT/index.json
##   REGEX  only (re)generate the cases whose name matches
## One process, one thread; a child process is forked only to put a time limit on Kenward-Roger and profile.
## one thread, whatever BLAS is installed: the variable has to be set before R loads it
if (Sys.getenv("OPENBLAS_NUM_THREADS") != "1" || Sys.getenv("OMP_NUM_THREADS") != "1") {
  Sys.setenv(OPENBLAS_NUM_THREADS = "1", OMP_NUM_THREADS = "1", MKL_NUM_THREADS = "1")
  self <- sub("^--file=", "", grep("^--file=", commandArgs(FALSE), value = TRUE))
  quit(save = "no", status = system2(file.path(R.home("bin"), "Rscript"), shQuote(c(self, commandArgs(TRUE)))))
}
args <- commandArgs(TRUE)
if (length(args) < 1) stop("usage: Rscript generate.R OUT [REGEX]")
OUT <- args[1]
## ---------------------------------------------------------------------------
## Machinery
## ---------------------------------------------------------------------------
suppressPackageStartupMessages({
  library(Matrix); library(lme4); library(lmerTest); library(pbkrtest)
  library(nlme); library(emmeans)
  library(jsonlite); library(parallel)
})
lmer <- lme4::lmer                       # never the lmerTest wrapper by accident
RNGkind("Mersenne-Twister", "Inversion", "Rejection")
options(width = 120, warn = 1, contrasts = c("contr.treatment", "contr.poly"))
emm_options(pbkrtest.limit = 20000, lmerTest.limit = 20000)

LIMIT_S <- 60                            # time limit for KR and for profile

## ---- numbers and JSON -------------------------------------------------------
## shortest of 15 / 16 / 17 significant digits that reads back to the same double
num_str <- function(x) {
  x <- as.numeric(x)
  s <- sprintf("%.15g", x)
  fin <- is.finite(x)
  bad <- fin & (suppressWarnings(as.numeric(s)) != x)
  if (any(bad)) {
    s[bad] <- sprintf("%.16g", x[bad])
    bad2 <- bad; bad2[bad] <- as.numeric(s[bad]) != x[bad]
    s[bad2] <- sprintf("%.17g", x[bad2])
  }
  s[is.na(x)] <- "null"
  s[x == Inf & !is.na(x)] <- "\"Inf\""; s[x == -Inf & !is.na(x)] <- "\"-Inf\""
  s
}
json_str <- function(x) {
  x <- enc2utf8(as.character(x))
  y <- gsub("\\", "\\\\", x, fixed = TRUE)
  y <- gsub("\"", "\\\"", y, fixed = TRUE)
  y <- gsub("\n", "\\n", y, fixed = TRUE)
  y <- gsub("\t", "\\t", y, fixed = TRUE)
  y <- gsub("[[:cntrl:]]", " ", y)
  ifelse(is.na(x), "null", paste0("\"", y, "\""))
}
arr <- function(x) structure(list(x = unname(x)), class = "json_array")  # force an array
atom <- function(x) {
  if (is.logical(x)) ifelse(is.na(x), "null", ifelse(x, "true", "false"))
  else if (is.numeric(x)) num_str(x)
  else json_str(x)
}
to_json <- function(x, ind = 0) {
  pad <- strrep(" ", ind + 1)
  if (is.null(x)) return("null")
  if (inherits(x, "json_array")) {
    v <- x$x
    if (is.list(v)) return(paste0("[", paste(vapply(v, to_json, "", ind = ind + 1), collapse = ", "), "]"))
    return(paste0("[", paste(atom(v), collapse = ", "), "]"))
  }
  if (is.factor(x)) x <- as.character(x)
  if (is.matrix(x)) {
    a <- matrix(atom(x), nrow(x), ncol(x))
    rows <- if (nrow(x)) apply(a, 1, function(r) paste0("[", paste(r, collapse = ", "), "]")) else character()
    return(paste0("[", paste(rows, collapse = ", "), "]"))
  }
  if (is.array(x) && length(dim(x)) == 3)   # last index first: one matrix per level
    return(paste0("[", paste(vapply(seq_len(dim(x)[3]), function(i)
      to_json(matrix(x[, , i], dim(x)[1], dim(x)[2]), ind), ""), collapse = ", "), "]"))
  if (is.list(x)) {
    if (length(x) == 0) return(if (is.null(names(x))) "[]" else "{}")
    if (is.null(names(x)))
      return(paste0("[\n", paste0(pad, vapply(x, to_json, "", ind = ind + 1), collapse = ",\n"), "]"))
    v <- vapply(x, to_json, "", ind = ind + 1)
    return(paste0("{\n", paste0(pad, json_str(names(x)), ": ", v, collapse = ",\n"), "}"))
  }
  if (!is.null(names(x))) {
    if (!length(x)) return("{}")
    return(paste0("{", paste0(json_str(names(x)), ": ", atom(x), collapse = ", "), "}"))
  }
  if (length(x) == 1) return(atom(x))
  paste0("[", paste(atom(x), collapse = ", "), "]")
}
write_json_file <- function(x, path) {
  dir.create(dirname(path), recursive = TRUE, showWarnings = FALSE)
  con <- file(path, open = "wb"); on.exit(close(con))
  writeLines(enc2utf8(to_json(x)), con, useBytes = TRUE)
}

## ---- data in and out --------------------------------------------------------
write_data <- function(d, name, gz = FALSE) {
  path <- file.path(OUT, "data", paste0(name, ".csv", if (gz) ".gz" else ""))
  dir.create(dirname(path), recursive = TRUE, showWarnings = FALSE)
  cols <- lapply(d, function(x) {
    if (is.factor(x)) x <- as.character(x)
    if (is.numeric(x)) { s <- num_str(x); s[is.na(x)] <- ""; s }
    else {
      x <- enc2utf8(as.character(x))
      q <- grepl("[\",\n]", x)
      x[q] <- paste0("\"", gsub("\"", "\"\"", x[q]), "\"")
      x[is.na(x)] <- ""
      x
    }
  })
  lines <- c(paste(names(d), collapse = ","), do.call(paste, c(unname(cols), sep = ",")))
  con <- if (gz) gzfile(path, open = "wb", compression = 9) else file(path, open = "wb")
  on.exit(close(con))
  writeLines(lines, con, useBytes = TRUE)
  invisible(path)
}
## every fit uses the file as written; factor levels are in code-point order
code_sort <- function(x) sort(unique(x[!is.na(x)]), method = "radix")
as_fac <- function(x) { x <- as.character(x); factor(x, levels = code_sort(x)) }
read_data <- function(name, factors) {
  path <- file.path(OUT, "data", paste0(name, ".csv"))
  if (!file.exists(path)) path <- paste0(path, ".gz")
  head <- names(read.csv(path, nrows = 1, check.names = FALSE, encoding = "UTF-8"))
  cc <- setNames(rep(NA_character_, length(head)), head)
  cc[intersect(head, factors)] <- "character"
  d <- read.csv(path, colClasses = cc, stringsAsFactors = FALSE, check.names = FALSE,
                na.strings = "", encoding = "UTF-8", fileEncoding = "")
  for (f in intersect(names(d), factors)) d[[f]] <- as_fac(d[[f]])
  d
}
data_file <- function(name) {
  p <- paste0("data/", name, ".csv")
  if (file.exists(file.path(OUT, p))) p else paste0(p, ".gz")
}

## ---- running something under a time limit, in a child process ---------------
with_limit <- function(f, secs = LIMIT_S) {
  t0 <- proc.time()[["elapsed"]]
  job <- mcparallel({
    w <- character()
    r <- tryCatch(withCallingHandlers(list(value = f(), ok = TRUE),
                    warning = function(c) { w <<- c(w, conditionMessage(c)); invokeRestart("muffleWarning") },
                    message = function(c) { w <<- c(w, conditionMessage(c)); invokeRestart("muffleMessage") }),
                  error = function(e) list(ok = FALSE, error = conditionMessage(e)))
    r$warnings <- unique(w); r
  }, silent = TRUE)
  res <- mccollect(job, wait = FALSE, timeout = secs)
  el <- proc.time()[["elapsed"]] - t0
  if (is.null(res)) {
    tools::pskill(job$pid, tools::SIGKILL)
    suppressWarnings(try(mccollect(job, wait = TRUE), silent = TRUE))
    return(list(ok = FALSE, error = sprintf("did not finish within %g s", secs), elapsed = el))
  }
  r <- res[[1]]
  if (!is.list(r)) r <- list(ok = FALSE, error = as.character(r))
  r$elapsed <- el
  r
}
collecting <- function(expr) {
  w <- character()
  v <- withCallingHandlers(expr,
    warning = function(c) { w <<- c(w, conditionMessage(c)); invokeRestart("muffleWarning") },
    message = function(c) { w <<- c(w, conditionMessage(c)); invokeRestart("muffleMessage") })
  list(value = v, messages = unique(trimws(w)))
}

## elapsed and CPU seconds; CPU clearly above elapsed would mean that more than one core was used
timed <- function(expr) { t <- system.time(expr); c(elapsed = t[["elapsed"]], cpu = t[["user.self"]] + t[["sys.self"]]) }

## ---- the polishing optimizer ------------------------------------------------
## 1. derivative-free searches from several starts (nlopt BOBYQA with tight
##    tolerances, then minqa bobyqa with a small trust region);
## 2. parameters with lower bound 0 that end at (almost) 0 are set to 0 when this
##    does not make the objective worse;
## 3. Newton steps on the free parameters with Richardson-extrapolated central
##    differences, with steps scaled to the curvature of each parameter.
POLISH <- new.env()
polish_reset <- function(starts = list(), nrandom = 4, scale = NULL, seed = 1, light = FALSE, fixed = NULL, blocks = NULL, nwide = 6) {
  POLISH$nwide <- if (light) 0 else nwide; POLISH$fixed <- fixed; POLISH$hess <- NULL; POLISH$blocks <- blocks
  POLISH$starts <- starts; POLISH$nrandom <- nrandom; POLISH$scale <- scale
  POLISH$seed <- seed; POLISH$light <- light; POLISH$info <- NULL
}
polish_reset()
rich_grad <- function(f, x, s, idx, h0 = 0.1) {
  vapply(idx, function(i) {
    d <- vapply(c(1, 0.5, 0.25), function(k) {
      h <- h0 * k * s[i]; a <- b <- x; a[i] <- a[i] + h; b[i] <- b[i] - h
      (f(a) - f(b)) / (2 * h) }, 0)
    e1 <- (4 * d[2] - d[1]) / 3; e2 <- (4 * d[3] - d[2]) / 3
    (16 * e2 - e1) / 15
  }, 0)
}
rich_hess <- function(f, x, s, idx, h0 = 0.1) {
  k <- length(idx); H <- matrix(0, k, k); f0 <- f(x)
  sd2 <- function(i, j, h) {
    hi <- h * s[i]; hj <- h * s[j]
    if (i == j) { a <- b <- x; a[i] <- a[i] + hi; b[i] <- b[i] - hi
      (f(a) - 2 * f0 + f(b)) / hi^2 }
    else { pp <- pm <- mp <- mm <- x
      pp[i] <- pp[i] + hi; pp[j] <- pp[j] + hj; mm[i] <- mm[i] - hi; mm[j] <- mm[j] - hj
      pm[i] <- pm[i] + hi; pm[j] <- pm[j] - hj; mp[i] <- mp[i] - hi; mp[j] <- mp[j] + hj
      (f(pp) - f(pm) - f(mp) + f(mm)) / (4 * hi * hj) }
  }
  for (a in seq_len(k)) for (b in seq_len(a)) {
    d1 <- sd2(idx[a], idx[b], h0); d2 <- sd2(idx[a], idx[b], h0 / 2)
    H[a, b] <- H[b, a] <- (4 * d2 - d1) / 3
  }
  H
}
par_scales <- function(f, x, idx) {
  s <- pmax(abs(x), 1e-9); f0 <- f(x)
  for (i in idx) {
    for (it in 1:60) {
      a <- b <- x; a[i] <- a[i] + s[i]; b[i] <- b[i] - s[i]
      d <- max(f(a) - f0, f(b) - f0, na.rm = TRUE)
      if (!is.finite(d) || d > 4) s[i] <- s[i] / 3
      else if (d < 0.1) s[i] <- s[i] * 3
      else break
    }
  }
  s
}
polish_opt <- function(fn, par, lower = rep(-Inf, length(par)), upper = rep(Inf, length(par)),
                       control = list(), ...) {
  if (!is.null(POLISH$fixed)) {          # theta carried over from an equivalent model
    v <- fn(POLISH$fixed)
    POLISH$info <- list(start_objectives = arr(v), grad_max_scaled = NA, theta_error_estimate = NA, at_bound = arr(integer()), evaluations = 1)
    return(list(par = POLISH$fixed, fval = v, feval = 1, conv = 0, convergence = 0, message = "fixed"))
  }
  sc <- POLISH$scale; if (is.null(sc)) sc <- rep(1, length(par))
  cnt <- 0
  f <- function(z) { cnt <<- cnt + 1; v <- tryCatch(fn(z * sc), error = function(e) NA_real_)
                     if (is.finite(v)) v else 1e300 }
  if (length(lower) < length(par)) lower <- c(lower, rep(-Inf, length(par) - length(lower)))
  lo <- lower / sc; up <- rep(Inf, length(par))
  starts <- c(list(par / sc), lapply(POLISH$starts, function(z) z / sc))
  set.seed(POLISH$seed)
  base <- starts[[length(starts)]]
  for (r in seq_len(POLISH$nrandom)) {
    z <- base
    z[is.finite(lo)] <- pmax(lo[is.finite(lo)], abs(z[is.finite(lo)]) * exp(rnorm(sum(is.finite(lo)), 0, 0.7)) + 0.05)
    fr <- !is.finite(lo); z[fr] <- z[fr] + rnorm(sum(fr), 0, 0.15 * pmax(abs(z[fr]), 0.2))
    starts <- c(starts, list(z))
  }
  tight <- list(algorithm = "NLOPT_LN_BOBYQA", xtol_abs = 1e-12, xtol_rel = 0, ftol_abs = 1e-13,
                ftol_rel = 0, maxeval = if (POLISH$light) 400 else 20000)
  runs <- lapply(starts, function(z) {
    z <- pmax(z, lo)
    r <- tryCatch(nloptr::nloptr(x0 = z, eval_f = f, lb = lo, ub = up, opts = tight), error = function(e) NULL)
    if (is.null(r)) return(list(par = z, val = f(z)))
    list(par = r$solution, val = r$objective)
  })
  if (is.null(POLISH$scale)) for (r in seq_len(POLISH$nwide)) {   # widely spread starts, a second method
    z <- ifelse(is.finite(lo), exp(rnorm(length(lo), -1.2, 1)), rnorm(length(lo), 0, 0.3))
    r1 <- tryCatch(nlminb(z, f, lower = lo, control = list(rel.tol = 1e-13, eval.max = 4000, iter.max = 1000)), error = function(e) NULL)
    if (is.null(r1)) next
    r2 <- tryCatch(minqa::bobyqa(r1$par, f, lower = lo, control = list(rhobeg = 0.02, rhoend = 1e-9, maxfun = 6000)), error = function(e) NULL)
    if (!is.null(r2) && r2$fval < r1$objective) r1 <- list(par = r2$par, objective = r2$fval)
    runs <- c(runs, list(list(par = r1$par, val = r1$objective)))
  }
  vals <- vapply(runs, function(r) r$val, 0)
  best <- runs[[which.min(vals)]]$par; bval <- min(vals)
  if (!POLISH$light) for (rb in c(1e-2, 1e-4)) {
    r <- tryCatch(minqa::bobyqa(best, f, lower = lo, upper = up,
           control = list(rhobeg = rb, rhoend = 1e-10, maxfun = 20000,
                          npt = min(2 * length(best) + 1, (length(best) + 2) * (length(best) + 1) / 2))),
           error = function(e) NULL)
    if (!is.null(r) && r$fval <= bval) { best <- r$par; bval <- r$fval }
  }
  ## bounds
  bnd <- is.finite(lo); active <- rep(FALSE, length(best))
  for (i in which(bnd & best < 5e-3)) {
    z <- best; z[i] <- 0; v <- f(z)
    if (v <= bval + 1e-7) { best <- z; bval <- v; active[i] <- TRUE }
  }
  if (!POLISH$light && is.null(POLISH$scale)) for (i in which(bnd & !active & best < 0.03)) {
    ## small but not 0: is 0 as good when the others are fitted again?
    fr <- setdiff(which(!active), i); if (!length(fr)) next
    g0 <- function(v) { z <- best; z[i] <- 0; z[fr] <- v; f(z) }
    r1 <- tryCatch(nlminb(best[fr], g0, lower = lo[fr], control = list(rel.tol = 1e-14, eval.max = 4000, iter.max = 1000)), error = function(e) NULL)
    if (is.null(r1)) next
    r2 <- if (length(fr) > 1) tryCatch(minqa::bobyqa(r1$par, g0, lower = lo[fr], control = list(rhobeg = 1e-3, rhoend = 1e-10, maxfun = 8000)), error = function(e) NULL) else NULL
    if (!is.null(r2) && r2$fval < r1$objective) r1 <- list(par = r2$par, objective = r2$fval)
    if (r1$objective <= bval + 1e-10) { best[fr] <- r1$par; best[i] <- 0; bval <- r1$objective; active[i] <- TRUE }
  }
  ## a zero on the diagonal of a covariance block leaves the rest of that column
  ## unidentified; the canonical form has the whole column 0, and keeps it there
  canon <- function(z) {
    k0 <- 0; hold <- rep(FALSE, length(z))
    for (k in POLISH$blocks) { m <- k0 + seq_len(k * (k + 1) / 2); k0 <- k0 + length(m)
      if (k < 2) next
      L <- matrix(0, k, k); L[lower.tri(L, TRUE)] <- (z * sc)[m]
      if (any(diag(L) == 0)) L <- safe_chol(tcrossprod(L))
      z[m] <- L[lower.tri(L, TRUE)] / sc[m]
      Hm <- matrix(rep(diag(L) == 0, each = k), k); hold[m] <- Hm[lower.tri(Hm, TRUE)]
    }
    list(z = z, hold = hold)
  }
  if (any(active) && !is.null(POLISH$blocks)) {
    cz <- canon(best); v <- f(cz$z)
    if (v <= bval + 1e-8) { best <- cz$z; bval <- v; active <- (bnd & best == 0) | cz$hold }
  }
  grad_max <- NA; err <- NA; H <- NULL; s <- NULL
  if (any(!active)) for (round in 1:3) {
    idx <- which(!active)
    if (!length(idx)) break
    s <- par_scales(f, best, idx)
    H <- rich_hess(f, best, s, idx)
    for (it in 1:8) {
      g <- rich_grad(f, best, s, idx)
      step <- tryCatch(-solve(H, g), error = function(e) {
        ev <- eigen(H, symmetric = TRUE); k <- ev$values > 1e-8 * max(ev$values)
        -ev$vectors[, k, drop = FALSE] %*% (crossprod(ev$vectors[, k, drop = FALSE], g) / ev$values[k]) })
      z <- best; z[idx] <- z[idx] + as.numeric(step); z <- pmax(z, lo)
      v <- f(z)
      rel <- max(abs(step) / s[idx])
      if (v <= bval + 1e-9 * max(1, abs(bval) * 1e-5)) { best <- z; bval <- v } else break
      if (rel < 1e-9) break
    }
    g <- rich_grad(f, best, s, idx)
    grad_max <- max(abs(g * s[idx])); err <- tryCatch(max(abs(solve(H, g))), error = function(e) NA)
    ## release a parameter held at 0 if the objective falls when it moves
    rel <- FALSE
    for (i in which(active & bnd)) for (h in c(1e-3, 1e-2, 5e-2)) {
      z <- best; z[i] <- h
      if (f(z) < bval - 1e-8) { active[i] <- FALSE; best <- z; bval <- f(z); rel <- TRUE; break }
    }
    if (!rel) break
  }
  v <- fn(best * sc)
  POLISH$info <- list(start_objectives = arr(vals), grad_max_scaled = grad_max,
                      theta_error_estimate = err * max(sc), at_bound = arr(which(active)), evaluations = cnt)
  POLISH$hess <- if (is.null(H)) NULL else list(H = H, idx = which(!active), sc = sc)
  list(par = best * sc, fval = v, feval = cnt, conv = 0, convergence = 0, message = "polished")
}
POLISH_CONTROL <- lmerControl(optimizer = "polish_opt", calc.derivs = FALSE, restart_edge = FALSE,
                              boundary.tol = 0, check.conv.singular = "ignore",
                              check.scaleX = "ignore")

## ---- names of fixed-effect columns as formulaic writes them -------------------
formulaic_map <- function(formula, data) {
  tt <- terms(nobars(formula), data = data)
  tt <- delete.response(tt)
  mf <- model.frame(tt, data, na.action = na.pass)
  fac <- attr(tt, "factors"); lab <- attr(tt, "term.labels")
  X <- model.matrix(tt, mf)
  out <- if (attr(tt, "intercept")) "Intercept" else character()
  full_done <- attr(tt, "intercept") == 1
  for (j in seq_along(lab)) {
    vars <- rownames(fac)[fac[, j] > 0]
    comps <- lapply(vars, function(v) {
      x <- mf[[v]]
      if (!is.factor(x) && !is.character(x)) return(v)
      lv <- levels(factor(x))
      full <- fac[v, j] == 2 || !full_done
      if (full) paste0(v, "[", lv, "]") else paste0(v, "[T.", lv[-1], "]")
    })
    if (!full_done && any(vapply(vars, function(v) is.factor(mf[[v]]), NA))) full_done <- TRUE
    g <- do.call(expand.grid, c(comps, stringsAsFactors = FALSE))
    out <- c(out, do.call(paste, c(unname(as.list(g)), sep = ":")))
  }
  stopifnot(length(out) == ncol(X))
  setNames(out, colnames(X))
}

## ---- pieces of a fitted model -------------------------------------------------
vc_terms <- function(fm) {
  cn <- getME(fm, "cnms"); vc <- VarCorr(fm); th <- getME(fm, "theta"); k <- 0
  ng <- vapply(getME(fm, "flist"), nlevels, 0L); asg <- attr(getME(fm, "flist"), "assign")
  lapply(seq_along(cn), function(i) {
    p <- length(cn[[i]]); nth <- p * (p + 1) / 2
    t <- th[k + seq_len(nth)]; k <<- k + nth
    m <- as.matrix(vc[[i]]); cr <- attr(vc[[i]], "correlation"); sdv <- attr(vc[[i]], "stddev")
    list(group = names(cn)[i], group_vars = arr(strsplit(names(cn)[i], ":", fixed = TRUE)[[1]]),
         n_levels = ng[[asg[i]]], columns = arr(cn[[i]]), theta = arr(t),
         sd = arr(as.numeric(sdv)), cov = matrix(as.numeric(m), p, p), corr = matrix(as.numeric(cr), p, p))
  })
}
ranef_list <- function(fm, condvar = TRUE) {
  re <- ranef(fm, condVar = condvar)
  lapply(re, function(r) {
    pv <- attr(r, "postVar")
    o <- list(columns = arr(names(r)), levels = arr(rownames(r)), values = as.matrix(r))
    if (!is.null(pv)) {
      sds <- function(a) sqrt(pmax(t(matrix(apply(a, 3, diag), nrow = dim(a)[1])), 0))
      sdm <- if (is.list(pv)) do.call(cbind, lapply(pv, sds)) else sds(pv)
      o$cond_sd <- sdm
      if (!is.list(pv) && dim(pv)[1] > 1 && length(pv) <= 1200) o$cond_cov <- pv
    }
    o
  })
}
ci_list <- function(ci) setNames(lapply(seq_len(nrow(ci)), function(i) arr(as.numeric(ci[i, ]))), rownames(ci))
df_records <- function(d) { d <- as.data.frame(d); list(columns = arr(names(d)), row_names = arr(rownames(d)),
  values = setNames(lapply(d, function(x) arr(if (is.factor(x)) as.character(x) else x)), names(d))) }

## exact profile-likelihood limits: root of the profiled ML deviance, no spline.
## Covariance blocks are written as sd's and canonical partial correlations, with the
## order of the variables chosen so that the correlation to be fixed is a parameter.
cpc_to_corr <- function(p, k) {          # p: lower triangle by rows
  L <- diag(k); m <- 0
  if (k > 1) for (a in 2:k) { r <- 1
    for (b in seq_len(a - 1)) { m <- m + 1; L[a, b] <- p[m] * r; r <- r * sqrt(max(0, 1 - p[m]^2)) }
    L[a, a] <- r }
  tcrossprod(L)
}
corr_to_cpc <- function(R) {
  k <- nrow(R); if (k < 2) return(numeric())
  L <- safe_chol(R); out <- numeric()
  for (a in 2:k) { r <- 1
    for (b in seq_len(a - 1)) { v <- if (r > 1e-12) max(-1, min(1, L[a, b] / r)) else 0
      out <- c(out, v); r <- r * sqrt(max(0, 1 - v^2)) } }
  out
}
safe_chol <- function(S) {               # lower factor of a semidefinite matrix
  k <- nrow(S); L <- matrix(0, k, k)
  for (j in seq_len(k)) {
    d <- S[j, j] - sum(L[j, seq_len(j - 1)]^2); if (!(d > 1e-13 * S[j, j])) d <- 0
    L[j, j] <- sqrt(d)
    if (j < k) for (i in (j + 1):k)
      L[i, j] <- if (L[j, j] > 0) (S[i, j] - sum(L[i, seq_len(j - 1)] * L[j, seq_len(j - 1)])) / L[j, j] else 0
  }
  L
}
exact_profile_ci <- function(fm, lmod, ci0, level = 0.95) {
  dev0 <- -2 * as.numeric(logLik(fm)); q <- qchisq(level, 1)
  nm <- lme4:::profnames(fm, useSc = TRUE, signames = FALSE)
  X <- lmod$X; y <- model.response(lmod$fr); th <- getME(fm, "theta"); lowt <- getME(fm, "lower")
  dv <- mkLmerDevfun(lmod$fr, X, lmod$reTrms, REML = FALSE); rho <- environment(dv)
  n <- nrow(X); ldW <- sum(log(rho$resp$weights))
  dev_ts <- function(theta, sigma) { dv(theta)
    rho$pp$ldL2() - ldW + (rho$resp$wrss() + rho$pp$sqrL(1)) / sigma^2 + n * log(2 * pi * sigma^2) }
  ks <- lengths(getME(fm, "cnms")); sig <- sigma(fm); vc <- VarCorr(fm)
  sds0 <- lapply(vc, function(v) unname(attr(v, "stddev"))); R0 <- lapply(vc, function(v) { r <- unname(attr(v, "correlation")); r[!is.finite(r)] <- 0; diag(r) <- 1; r })
  ## parameter table in the order of lme4's names
  tab <- do.call(rbind, lapply(seq_along(ks), function(t) { k <- ks[t]
    do.call(rbind, lapply(seq_len(k), function(j) do.call(rbind, lapply(j:k, function(i)
      data.frame(t = t, i = i, j = j, type = if (i == j) "sd" else "cor"))))) }))
  tab <- rbind(tab, data.frame(t = NA, i = NA, j = NA, type = "sigma")); stopifnot(nrow(tab) == length(nm))
  out <- list()
  ## a coordinate system with parameter r as coordinate number `pos`
  system_for <- function(r) {
    perm <- lapply(ks, seq_len)
    if (tab$type[r] == "cor") { k <- ks[tab$t[r]]; a <- tab$j[r]; b <- tab$i[r]
      perm[[tab$t[r]]] <- c(a, b, setdiff(seq_len(k), c(a, b))) }
    start <- numeric(); lo <- numeric(); up <- numeric(); pos <- NA; off <- 0
    for (t in seq_along(ks)) { k <- ks[t]; pm <- perm[[t]]
      start <- c(start, pmax(sds0[[t]][pm], 1e-8), corr_to_cpc(R0[[t]][pm, pm, drop = FALSE]))
      nc <- k * (k - 1) / 2
      lo <- c(lo, rep(0, k), rep(-1, nc)); up <- c(up, rep(Inf, k), rep(1, nc))
      if (identical(tab$t[r], as.integer(t)) || isTRUE(tab$t[r] == t))
        pos <- off + if (tab$type[r] == "sd") which(pm == tab$i[r]) else k + 1
      off <- off + k + nc }
    start <- c(start, sig); lo <- c(lo, 1e-4 * sig); up <- c(up, Inf)
    if (tab$type[r] == "sigma") pos <- length(start)
    fun <- function(z) { o <- 0; theta <- numeric(); s <- z[length(z)]
      for (t in seq_along(ks)) { k <- ks[t]; nc <- k * (k - 1) / 2; pm <- perm[[t]]
        sdv <- z[o + seq_len(k)]; R <- cpc_to_corr(z[o + k + seq_len(nc)], k)
        S <- matrix(0, k, k); S[pm, pm] <- R * tcrossprod(sdv / s)
        L <- safe_chol(S); theta <- c(theta, L[lower.tri(L, TRUE)]); o <- o + k + nc }
      v <- tryCatch(dev_ts(theta, s), error = function(e) NA); if (is.finite(v)) v else 1e10 }
    list(fun = fun, start = start, lo = lo, up = up, pos = pos)
  }
  minfix <- function(sy, v, cur) {
    i <- sy$pos
    if (length(sy$start) == 1) return(list(val = sy$fun(v), par = v))
    ps <- ifelse(abs(sy$start) > 2e-8, abs(sy$start), 1e-2 * sig); ps[sy$lo == -1] <- 0.5
    g <- function(z) { x <- sy$start; x[i] <- v; x[-i] <- z * ps[-i]; sy$fun(x) }
    L <- sy$lo[-i] / ps[-i]; U <- sy$up[-i] / ps[-i]
    one <- function(z0) {
      z0 <- pmin(pmax(z0, L + 1e-6), U - 1e-6)
      r <- nlminb(z0, g, lower = L, upper = U, control = list(rel.tol = 1e-14, iter.max = 500, eval.max = 5000))
      for (rb in c(1e-2, 1e-4)) {
        r2 <- tryCatch(minqa::bobyqa(r$par, g, lower = L, upper = U,
              control = list(rhobeg = rb, rhoend = 1e-9, maxfun = 6000)), error = function(e) NULL)
        if (!is.null(r2) && r2$fval < r$objective) r <- list(par = r2$par, objective = r2$fval) }
      r
    }
    r <- one(cur[-i] / ps[-i])
    if (length(ks[ks > 1]) && !identical(cur, sy$start)) {
      r2 <- one(sy$start[-i] / ps[-i]); if (r2$objective < r$objective) r <- r2 }
    x <- sy$start; x[i] <- v; x[-i] <- r$par * ps[-i]
    list(val = r$objective, par = x)
  }
  solve_side <- function(fmin, est, b0, side, bound) {
    ## fmin(v) -> minimal deviance with the parameter fixed at v
    f <- function(v) sqrt(max(fmin(v) - dev0, 0)) - sqrt(q)
    far <- Inf
    if (is.finite(bound)) {
      far <- if (abs(bound) == 1) bound * (1 - 1e-9) else bound
      if (fmin(far) - dev0 < q) return(bound)
    }
    if (!is.finite(b0) || b0 == bound || side * (b0 - est) <= 0) b0 <- est + side * max(abs(est), 1e-3) * 0.3
    lo_v <- est; f_lo <- -sqrt(q); hi_v <- b0; f_hi <- NA
    for (it in 1:40) {
      if (is.finite(far) && side * (hi_v - far) >= 0) hi_v <- far
      f_hi <- f(hi_v)
      if (abs(f_hi) < 1e-10) return(hi_v)
      if (f_hi > 0 || identical(hi_v, far)) break
      lo_v <- hi_v; f_lo <- f_hi; hi_v <- est + 1.3 * (hi_v - est)
    }
    if (!(f_hi > 0)) return(NA_real_)
    tol <- 1e-10 * abs(hi_v - est)
    r <- if (lo_v < hi_v) uniroot(f, c(lo_v, hi_v), f.lower = f_lo, f.upper = f_hi, tol = tol, maxiter = 60)
         else uniroot(f, c(hi_v, lo_v), f.lower = f_hi, f.upper = f_lo, tol = tol, maxiter = 60)
    if (abs(r$f.root) < 1e-6) r$root else NA_real_
  }
  for (r in seq_along(nm)) {
    sy <- system_for(r); est <- sy$start[sy$pos]
    out[[nm[r]]] <- vapply(c(-1, 1), function(sd) {
      cur <- sy$start
      fmin <- function(v) {
        m <- minfix(sy, v, cur)
        if (m$val < 1e9 && abs(abs(v) - 1) > 1e-6) cur <<- m$par
        m$val }
      b0 <- if (nm[r] %in% rownames(ci0)) ci0[nm[r], if (sd < 0) 1 else 2] else NA
      bound <- if (tab$type[r] == "sigma") sd * Inf else if (sd < 0) sy$lo[sy$pos] else sy$up[sy$pos]
      solve_side(fmin, est, b0, sd, bound) }, 0)
  }
  for (j in seq_len(ncol(X))) {
    fmin <- function(v) {
      fr <- lmod$fr; fr[[1]] <- y - v * X[, j]
      df <- mkLmerDevfun(fr, X[, -j, drop = FALSE], lmod$reTrms, REML = FALSE)
      r <- nlminb(pmax(th, 1e-4 * (lowt == 0)), df, lower = lowt, control = list(rel.tol = 1e-14, eval.max = 3000))
      r2 <- minqa::bobyqa(r$par, df, lower = lowt, control = list(rhobeg = 1e-3, rhoend = 1e-9, maxfun = 4000))
      min(r$objective, r2$fval)
    }
    nj <- colnames(X)[j]; est <- fixef(fm)[[nj]]
    out[[nj]] <- vapply(c(-1, 1), function(sd)
      solve_side(fmin, est, if (nj %in% rownames(ci0)) ci0[nj, if (sd < 0) 1 else 2] else NA, sd, sd * Inf), 0)
  }
  do.call(rbind, out)
}

## ---- one LMM case ---------------------------------------------------------------
MODELS <- new.env()
ONLY <- NULL
TIMINGS <- list()
wanted <- function(name) is.null(ONLY) || grepl(ONLY, name)

lmm_case <- function(name, data, fixed, random, factors, about = "", weights = NULL, offset = NULL,
                     methods = c("ML", "REML"), profile = TRUE, exact = TRUE, kr = TRUE, type3 = FALSE, emm = NULL,
                     predict = NULL, nrandom = 4, nwide = 6, light = FALSE, scale = NULL, condvar = TRUE, satt = TRUE,
                     extras = FALSE, reps = NULL, random_expanded = NULL, equiv = NULL) {
  if (!wanted(name)) return(invisible())
  d <- read_data(data, factors)
  ftxt <- paste(fixed, "+", paste(random, collapse = " + "))
  form <- as.formula(ftxt, env = globalenv())
  ## named globally so that update()/lmerTest/pbkrtest can find them again
  assign("DAT", d, envir = globalenv())
  if (!is.null(weights)) assign("WTS", d[[weights]], envir = globalenv())
  if (!is.null(offset)) assign("OFF", d[[offset]], envir = globalenv())
  mkcall <- function(fun, REML, control = NULL) {
    cl <- list(fun, form, data = quote(DAT), REML = REML)
    if (!is.null(weights)) cl$weights <- quote(WTS)
    if (!is.null(offset)) cl$offset <- quote(OFF)
    if (!is.null(control)) cl$control <- control
    as.call(cl)
  }
  ml_profile <- NULL
  for (method in methods) {
    REML <- method == "REML"; case <- paste0(name, "_", method)
    cat(sprintf("[%s] %s\n", format(Sys.time(), "%H:%M:%S"), case))
    ## the default fit, timed
    tc <- timed(dflt <- collecting(eval(mkcall(quote(lme4::lmer), REML), globalenv())))
    nr <- if (!is.null(reps)) reps else if (tc[["elapsed"]] < 1) 7 else 3
    rt <- vapply(seq_len(nr), function(i) timed(suppressMessages(suppressWarnings(
        eval(mkcall(quote(lme4::lmer), REML), globalenv())))), tc)
    tm <- median(rt["elapsed", ]); tcpu <- median(rt["cpu", ])
    fd <- dflt$value
    obj <- function(m) if (REML) as.numeric(lme4::REMLcrit(m)) else -2 * as.numeric(logLik(m))
    ## the polished fit
    ## `equiv`: an equivalent, better conditioned parametrisation (beta = A beta2, and the
    ## random effects alike); used for the degrees of freedom, where numerical derivatives
    ## in the original one are meaningless, and for theta if equiv$theta is given
    fm2 <- NULL; A <- NULL
    if (!is.null(equiv)) {
      A <- equiv$A; assign("DAT2", equiv$map(d), envir = globalenv())
      polish_reset()
      fm2 <- eval(as.call(list(quote(lme4::lmer), form, data = quote(DAT2), REML = REML, control = quote(POLISH_CONTROL))), globalenv())
    }
    polish_reset(starts = list(getME(fd, "theta")), nrandom = nrandom, light = light, scale = scale, blocks = lengths(getME(fd, "cnms")), nwide = nwide,
                 fixed = if (!is.null(equiv$theta)) equiv$theta(fm2))
    t0 <- proc.time()[["elapsed"]]
    pol <- collecting(eval(mkcall(quote(lme4::lmer), REML, quote(POLISH_CONTROL)), globalenv()))
    tpol <- proc.time()[["elapsed"]] - t0
    fm <- pol$value; pinfo <- POLISH$info; hess <- POLISH$hess
    th <- getME(fm, "theta"); X <- getME(fm, "X"); b <- fixef(fm)
    V <- as.matrix(vcov(fm)); V <- matrix(V, nrow(V), dimnames = list(names(b), names(b)))
    fmap <- formulaic_map(form, d)
    dropped <- setdiff(names(fmap), names(b))
    ll <- logLik(fm)
    fixed_facs <- intersect(factors, all.vars(nobars(form)))
    slope_facs <- setdiff(intersect(factors, unlist(lapply(findbars(form), function(z) all.vars(z[[2]])))), fixed_facs)
    fl <- getME(fm, "flist")
    terms_list <- vc_terms(fm)
    res <- list(
      kind = "lmm", case = case, name = name, about = about, data = data_file(data),
      formula_lme4 = ftxt, fixed = fixed, random = arr(random))
    if (!is.null(random_expanded)) res$random_expanded <- arr(random_expanded)
    res <- c(res, list(
      weights = weights, offset = offset, method = method, factors = arr(factors),
      contrasts = "treatment", na_action = "omit",
      levels = setNames(lapply(c(fixed_facs, slope_facs), function(f) arr(levels(d[[f]]))), c(fixed_facs, slope_facs)),
      nobs = nobs(fm), n_rows_in_file = nrow(d),
      dropped_rows = arr(if (is.null(attr(fm@frame, "na.action"))) integer() else as.integer(attr(fm@frame, "na.action")) - 1L),
      n_levels = setNames(as.list(vapply(fl, nlevels, 0L)), names(fl)),
      p = length(b), q = nrow(getME(fm, "Zt")),
      coef_names = arr(names(b)), coef_names_formulaic = arr(unname(fmap[names(b)])),
      dropped_columns = arr(dropped),
      fixef = b, se = setNames(sqrt(diag(V)), names(b)), vcov = V,
      theta = arr(th), theta_names = arr(names(th)), theta_lower = arr({ lw <- getME(fm, "lower"); lw[!is.finite(lw)] <- NA; lw }),
      sigma = sigma(fm), var_terms = terms_list,
      logLik = as.numeric(ll), objective = obj(fm),
      objective_kind = if (REML) "REML criterion (-2 restricted log-likelihood)" else "deviance (-2 log-likelihood)",
      AIC = AIC(fm), BIC = BIC(fm), df = attr(ll, "df"), df_residual = df.residual(fm),
      ml_deviance_at_theta = -2 * as.numeric(logLik(fm, REML = FALSE)),
      reml_criterion_at_theta = -2 * as.numeric(logLik(fm, REML = TRUE)),
      singular = isSingular(fm, tol = 1e-4),
      fitted_first20 = arr(head(unname(fitted(fm)), 20)), resid_first20 = arr(head(unname(residuals(fm)), 20)),
      fitted_norm2 = sum(fitted(fm)^2), resid_norm2 = sum(residuals(fm)^2),
      ranef = ranef_list(fm, condvar)))
    if (is.null(weights)) res$weights <- NULL
    if (is.null(offset)) res$offset <- NULL
    res["weights"] <- list(weights); res["offset"] <- list(offset)
    ## lmerTest
    if (!is.null(fm2)) {
      st <- NULL
      lt2 <- suppressWarnings(suppressMessages(as_lmerModLmerTest(fm2)))
      tb <- do.call(rbind, lapply(seq_along(b), function(k) contest1D(lt2, A[k, ], ddf = "Satterthwaite")))
      res$satterthwaite <- list(df = setNames(tb$df, names(b)), t = setNames(tb[["t value"]], names(b)), p = setNames(tb[["Pr(>|t|)"]], names(b)),
                                note = equiv$note)
      res$equivalent_model <- list(note = equiv$note, objective_plus_logdet = obj(fm2) - if (REML) 2 * log(abs(det(A))) else 0)
      cat(sprintf("    equivalent model: objective differs by %.2e\n", res$equivalent_model$objective_plus_logdet - obj(fm)))
    } else if (satt) {
      st <- collecting(tryCatch({
        lt <- as_lmerModLmerTest(fm)
        list(lt = lt, tab = coef(summary(lt, ddf = "Satterthwaite")))
      }, error = function(e) e))
      if (inherits(st$value, "error")) res$satterthwaite <- list(error = conditionMessage(st$value))
      else {
        tb <- st$value$tab
        res$satterthwaite <- list(df = tb[, "df", drop = TRUE], t = tb[, "t value", drop = TRUE], p = tb[, "Pr(>|t|)", drop = TRUE])
        if (nrow(tb) == 1) res$satterthwaite <- lapply(res$satterthwaite, function(v) setNames(v, names(b)))
        if (length(st$messages)) res$satterthwaite$messages <- arr(st$messages)
      }
    } else st <- NULL
    ## Kenward-Roger
    if (REML) {
      if (!kr) res$kenward_roger <- list(skipped = TRUE)
      else {
        krr <- with_limit(function() {
          m <- if (is.null(fm2)) fm else fm2
          va <- pbkrtest::vcovAdj(m); p <- length(b); V0 <- vcov(m)
          AA <- if (is.null(A)) diag(p) else A
          dfk <- vapply(seq_len(p), function(j) pbkrtest::Lb_ddf(AA[j, ], V0, va), 0)
          list(va = AA %*% matrix(as.numeric(as.matrix(va)), p) %*% t(AA), df = dfk)
        })
        if (krr$ok && all(is.finite(krr$value$va))) {
          va <- krr$value$va; sek <- sqrt(diag(va)); dfk <- krr$value$df
          res$kenward_roger <- list(df = setNames(dfk, names(b)), se = setNames(sek, names(b)),
            t = setNames(b / sek, names(b)), p = setNames(2 * pt(-abs(b / sek), dfk), names(b)), vcov_adj = va)
        } else res$kenward_roger <- list(error = if (krr$ok) "not finite" else krr$error)
        kr_ok <- krr$ok
      }
    } else kr_ok <- FALSE
    ## intervals
    wci <- suppressMessages(confint(fm, method = "Wald", parm = "beta_"))
    rownames(wci) <- names(b)
    res$ci_wald <- ci_list(wci)
    if (method == "ML" && profile) {
      pr <- with_limit(function() {
        p <- profile(fm, optimizer = "bobyqa", control = list(rhoend = 1e-8), signames = FALSE)
        ci <- confint(p, level = 0.95)
        ci
      })
      if (pr$ok) {
        ml_profile <- list(method = "lme4 profile(), ML fit", level = 0.95, limits = ci_list(pr$value), elapsed_s = round(pr$elapsed, 2))
        if (length(pr$warnings)) ml_profile$warnings <- arr(head(pr$warnings, 8))
      } else ml_profile <- list(error = pr$error)
      if (exact) {
        ci0 <- if (pr$ok) pr$value else matrix(NA, 0, 2)
        lmodc <- mkcall(quote(lme4::lFormula), FALSE)
        lmod <- suppressMessages(suppressWarnings(eval(lmodc, globalenv())))
        ex <- with_limit(function() exact_profile_ci(fm, lmod, ci0), secs = 240)
        if (ex$ok) ml_profile$limits_exact <- ci_list(ex$value) else ml_profile$exact_error <- ex$error
      }
    }
    if (profile) {
      if (is.null(ml_profile)) ml_profile <- list(skipped = TRUE)
      res$ci_profile <- ml_profile
      if (REML) res$ci_profile$note <- "lme4 profiles the ML fit, so these are the ML limits"
    } else res$ci_profile <- list(skipped = TRUE)
    ## tests
    if (type3 && !is.null(st) && !inherits(st$value, "error")) {
      lt <- st$value$lt
      a3 <- function(ddf, type) { a <- collecting(anova(lt, type = type, ddf = ddf))$value
        df_records(setNames(as.data.frame(a), c("sum_sq", "mean_sq", "num_df", "den_df", "F", "p"))) }
      res$anova_type3 <- list(satterthwaite = a3("Satterthwaite", "III"))
      if (REML && kr && kr_ok) res$anova_type3$kenward_roger <- a3("Kenward-Roger", "III")
      res$anova_type2 <- list(satterthwaite = a3("Satterthwaite", "II"))
      res$anova_type1 <- list(satterthwaite = a3("Satterthwaite", "I"))
      ca <- tryCatch(list(type2 = df_records(setNames(as.data.frame(car::Anova(fm, type = 2)), c("chisq", "df", "p"))),
                          type3 = df_records(setNames(as.data.frame(car::Anova(fm, type = 3)), c("chisq", "df", "p")))),
                     error = function(e) NULL)
      if (!is.null(ca)) res$wald_chisq <- ca
    }
    if (!is.null(emm)) {
      lt <- if (!is.null(st) && !inherits(st$value, "error")) st$value$lt else fm
      res$emmeans <- lapply(setNames(emm, emm), function(e) {
        one <- function(df) {
          em <- suppressMessages(emmeans(lt, as.formula(paste("~", e)), lmer.df = df))
          list(means = df_records(as.data.frame(summary(em))),
               pairs_unadjusted = df_records(as.data.frame(summary(pairs(em), adjust = "none"))),
               pairs_tukey = df_records(as.data.frame(summary(pairs(em), adjust = "tukey"))))
        }
        o <- list(satterthwaite = one("satterthwaite"), asymptotic = one("asymptotic"))
        if (REML && kr && kr_ok) o$kenward_roger <- one("kenward-roger")
        o
      })
    }
    if (!is.null(predict)) {
      res$predictions <- lapply(predict, function(pn) {
        nd <- pn$newdata
        r <- list(about = pn$about, newdata = setNames(lapply(nd, function(x) arr(if (is.factor(x)) as.character(x) else x)), names(nd)))
        ndf <- nd; for (f in intersect(names(ndf), factors)) ndf[[f]] <- factor(as.character(ndf[[f]]),
            levels = if (f %in% fixed_facs) levels(d[[f]]) else code_sort(as.character(ndf[[f]])))
        r$population <- arr(as.numeric(stats::predict(fm, newdata = ndf, re.form = NA)))
        known <- tryCatch(arr(as.numeric(stats::predict(fm, newdata = ndf))), error = function(e) NULL)
        r["conditional"] <- list(known)
        if (is.null(known)) r$conditional_note <- "error: new levels without allow_new_levels"
        r$conditional_allow_new_levels <- arr(as.numeric(stats::predict(fm, newdata = ndf, allow.new.levels = TRUE)))
        r
      })
    }
    if (extras && !isSingular(fm)) {
      r2 <- tryCatch(suppressWarnings(performance::r2_nakagawa(fm)), error = function(e) NULL)
      ic <- tryCatch(suppressWarnings(performance::icc(fm)), error = function(e) NULL)
      if (!is.null(r2)) res$r2_nakagawa <- list(marginal = as.numeric(r2$R2_marginal), conditional = as.numeric(r2$R2_conditional))
      if (!is.null(ic)) res$icc <- list(adjusted = as.numeric(ic$ICC_adjusted), unadjusted = as.numeric(ic$ICC_unadjusted))
    }
    ## optimizers
    oi <- fd@optinfo
    conv_msgs <- c(unlist(oi$conv$lme4$messages), dflt$messages)
    res$optimizer <- list(
      default = list(optimizer = oi$optimizer, objective = obj(fd), theta = arr(getME(fd, "theta")),
                     sigma = sigma(fd), evaluations = as.integer(oi$feval), messages = arr(unique(conv_msgs)),
                     elapsed_s = round(tm, 4), cpu_s = round(tcpu, 4)),
      polished = c(list(objective = obj(fm), objective_gain = obj(fd) - obj(fm), messages = arr(pol$messages),
                        elapsed_s = round(tpol, 2)), pinfo))
    if (!is.null(hess)) res$optimizer$polished$theta_hessian <- list(
      free = arr(hess$idx), matrix = hess$H / tcrossprod(hess$sc[hess$idx]))
    write_json_file(res, file.path(OUT, "cases", paste0(case, ".json")))
    TIMINGS[[case]] <<- tm
    assign(case, list(fm = fm, form = form, d = d), envir = MODELS)
    cat(sprintf("    n=%d obj=%.9f gain=%.2e |g|=%.1e theta_err=%.1e default %.3fs (cpu %.3f) polish %.1fs sing=%s kr=%s prof=%s exact=%s\n",
      nobs(fm), obj(fm), obj(fd) - obj(fm), pinfo$grad_max_scaled, pinfo$theta_error_estimate, tm, tcpu, tpol, res$singular,
      if (is.null(res$kenward_roger)) "-" else if (is.null(res$kenward_roger$df)) paste0("no(", substr(paste(res$kenward_roger), 1, 40), ")") else "yes",
      if (is.null(res$ci_profile$limits)) paste0("no(", substr(paste(unlist(res$ci_profile)[1]), 1, 60), ")") else "yes",
      if (is.null(res$ci_profile$limits_exact)) paste0("no ", substr(res$ci_profile$exact_error, 1, 60)) else sum(is.na(unlist(lapply(res$ci_profile$limits_exact, function(a) a$x))))))
  }
  invisible()
}

## likelihood-ratio test between two cases already fitted
lrt_case <- function(name, small, big, about = "") {
  if (!wanted(name)) return(invisible())
  a <- get(paste0(small, "_ML"), MODELS)$fm; b <- get(paste0(big, "_ML"), MODELS)$fm
  lla <- logLik(a); llb <- logLik(b)
  chisq <- 2 * (as.numeric(llb) - as.numeric(lla)); df <- attr(llb, "df") - attr(lla, "df")
  an <- suppressMessages(anova(a, b, refit = FALSE))
  write_json_file(list(kind = "lrt", case = name, name = name, about = about, method = "ML",
    small = paste0(small, "_ML"), big = paste0(big, "_ML"),
    npar = arr(an$npar), AIC = arr(an$AIC), BIC = arr(an$BIC), logLik = arr(an$logLik), deviance = arr(an$deviance),
    chisq = chisq, df = df, p = pchisq(chisq, df, lower.tail = FALSE)),
    file.path(OUT, "cases", paste0(name, ".json")))
  cat("   ", name, "chisq", chisq, "df", df, "\n")
}

## many responses on one design
batch_case <- function(name, data, fixed_rhs, random, factors, responses, about = "", methods = c("ML", "REML")) {
  if (!wanted(name)) return(invisible())
  d <- read_data(data, factors)
  for (method in methods) {
    REML <- method == "REML"
    cat(sprintf("[%s] %s_%s\n", format(Sys.time(), "%H:%M:%S"), name, method))
    rows <- lapply(responses, function(y) {
      dd <- d; dd$y_ <- d[[y]]
      form <- as.formula(paste("y_ ~", fixed_rhs, "+", paste(random, collapse = " + ")))
      tm <- system.time(fd <- suppressWarnings(suppressMessages(lme4::lmer(form, dd, REML = REML))))[["elapsed"]]
      polish_reset(starts = list(getME(fd, "theta")), nrandom = 3, nwide = 2, blocks = lengths(getME(fd, "cnms")))
      fm <- suppressWarnings(suppressMessages(lme4::lmer(form, dd, REML = REML, control = POLISH_CONTROL)))
      o <- function(m) if (REML) as.numeric(lme4::REMLcrit(m)) else -2 * as.numeric(logLik(m))
      list(theta = getME(fm, "theta"), sigma = sigma(fm), fixef = fixef(fm), se = sqrt(diag(as.matrix(vcov(fm)))),
           logLik = as.numeric(logLik(fm)), objective = o(fm), objective_default = o(fd), singular = isSingular(fm),
           tm = tm, err = POLISH$info$theta_error_estimate, nm = names(fixef(fm)), tn = names(getME(fm, "theta")))
    })
    g <- function(k) do.call(rbind, lapply(rows, function(r) unname(r[[k]])))
    gv <- function(k) arr(vapply(rows, function(r) r[[k]], rows[[1]][[k]]))
    write_json_file(list(kind = "lmm_batch", case = paste0(name, "_", method), name = name, about = about,
      data = data_file(data), fixed_rhs = fixed_rhs, random = arr(random), factors = arr(factors), method = method,
      contrasts = "treatment", responses = arr(responses), coef_names = arr(rows[[1]]$nm), theta_names = arr(rows[[1]]$tn),
      nobs = nrow(d), fixef = g("fixef"), se = g("se"), theta = g("theta"), sigma = gv("sigma"), logLik = gv("logLik"),
      objective = gv("objective"), objective_default = gv("objective_default"), singular = gv("singular"),
      default_elapsed_total_s = round(sum(vapply(rows, function(r) r$tm, 0)), 3)),
      file.path(OUT, "cases", paste0(name, "_", method, ".json")))
    TIMINGS[[paste0(name, "_", method, " (", length(rows), " fits)")]] <<- sum(vapply(rows, function(r) r$tm, 0))
    cat(sprintf("    singular %d of %d; worst theta err %.1e; worst default gap %.2e; min gap %.2e\n", sum(vapply(rows, function(r) r$singular, NA)),
      length(rows), max(vapply(rows, function(r) as.numeric(r$err), 0), na.rm = TRUE),
      max(vapply(rows, function(r) r$objective_default - r$objective, 0)), min(vapply(rows, function(r) r$objective_default - r$objective, 0))))
  }
}

write_index <- function() {
  fs <- c(list.files(file.path(OUT, "cases"), "\\.json$"), character())
  one <- function(dir, f) { j <- jsonlite::fromJSON(file.path(OUT, dir, f), simplifyVector = FALSE)
    list(file = paste0(dir, "/", f), kind = j$kind, name = j$name, method = if (is.null(j$method)) NA_character_ else j$method,
         nobs = if (is.null(j$nobs)) NA else j$nobs,
         default_elapsed_s = { e <- j$optimizer$default$elapsed_s; if (is.null(e)) e <- j$default_elapsed_total_s; if (is.null(e)) NA else e }) }
  pk <- c("lme4", "lmerTest", "pbkrtest", "nlme", "emmeans", "car", "performance", "Matrix", "nloptr", "minqa", "jsonlite")
  pk <- pk[nzchar(vapply(pk, function(p) system.file(package = p), ""))]   # car and performance may be absent
  write_json_file(list(
    versions = c(list(R = paste(R.version$major, R.version$minor, sep = ".")),
                 setNames(lapply(pk, function(p) as.character(packageVersion(p))), pk)),
    blas = basename(normalizePath(extSoftVersion()[["BLAS"]])), lapack = basename(La_library()),
    blas_flavour = basename(dirname(normalizePath(extSoftVersion()[["BLAS"]]))), threads = 1,
    cases = lapply(fs, one, dir = "cases")),
    file.path(OUT, "index.json"))
}
## ---------------------------------------------------------------------------
## The cases
## ---------------------------------------------------------------------------
if (length(args) > 1) ONLY <- args[2]
dir.create(file.path(OUT, "cases"), recursive = TRUE, showWarnings = FALSE)
E <- new.env(); data(list = c("sleepstudy", "Dyestuff", "Dyestuff2", "Penicillin", "Pastes", "cake", "InstEval"),
                     package = "lme4", envir = E)

## ---- data -------------------------------------------------------------------
d <- E$sleepstudy; write_data(data.frame(Reaction = d$Reaction, Days = d$Days, Subject = paste0("S", d$Subject)), "sleepstudy")
d <- E$Dyestuff;   write_data(data.frame(Yield = d$Yield, Batch = d$Batch), "dyestuff")
d <- E$Dyestuff2;  write_data(data.frame(Yield = d$Yield, Batch = d$Batch), "dyestuff2")
d <- E$Penicillin; write_data(data.frame(diameter = d$diameter, plate = d$plate, sample = d$sample), "penicillin")
d <- E$Pastes;     write_data(data.frame(strength = d$strength, batch = d$batch, cask = d$cask), "pastes")
d <- E$cake;       write_data(data.frame(angle = d$angle, recipe = d$recipe, temp = paste0("T", d$temp), replicate = sprintf("R%02d", as.integer(as.character(d$replicate)))), "cake")
d <- as.data.frame(nlme::Machines); write_data(data.frame(score = d$score, Machine = as.character(d$Machine), Worker = paste0("W", d$Worker)), "machines")
d <- as.data.frame(nlme::Oats); write_data(data.frame(yield = d$yield, nitro = d$nitro, Variety = as.character(d$Variety), Block = as.character(d$Block)), "oats")
if (wanted("insteval")) { d <- E$InstEval
  write_data(data.frame(y = d$y, service = ifelse(d$service == "1", "yes", "no"), s = paste0("s", d$s), d = paste0("d", d$d),
                        dept = paste0("p", d$dept)), "InstEval", gz = TRUE) }

## crossed subjects and items
make_crossed <- function(seed, ns = 40, ni = 24) {
  set.seed(seed)
  g <- expand.grid(i = seq_len(ni), s = seq_len(ns))
  g$condition <- ifelse((g$i + g$s) %% 2 == 0, "congruent", "incongruent")
  x <- as.numeric(g$condition == "incongruent")
  cs <- chol(matrix(c(80^2, 0.35 * 80 * 30, 0.35 * 80 * 30, 30^2), 2)); ci <- chol(matrix(c(45^2, -0.3 * 45 * 22, -0.3 * 45 * 22, 22^2), 2))
  bs <- matrix(rnorm(2 * ns), ns) %*% cs; bi <- matrix(rnorm(2 * ni), ni) %*% ci
  rt <- 620 + 38 * x + bs[g$s, 1] + bs[g$s, 2] * x + bi[g$i, 1] + bi[g$i, 2] * x + rnorm(nrow(g), 0, 95)
  d <- data.frame(rt = round(rt, 2), condition = g$condition, cond_c = x - 0.5,
                  subject = sprintf("sub%02d", g$s), item = sprintf("item%02d", g$i))
  keep <- sort(sample(nrow(d), round(0.93 * nrow(d))))
  d[keep, ]
}
write_data(make_crossed(20240611), "crossed")

set.seed(7101)
n <- 240; g <- rep(seq_len(24), each = 10); x <- round(rnorm(n), 3); w <- round(rgamma(n, 3, 2) + 0.1, 3)
b <- cbind(rnorm(24, 0, 1.2), rnorm(24, 0, 0.5)); y <- 2 + 0.8 * x + b[g, 1] + b[g, 2] * x + rnorm(n) / sqrt(w)
write_data(data.frame(y = round(y, 4), x = x, w = w, g = sprintf("g%02d", g)), "weighted")

set.seed(7102)
n <- 200; g <- rep(seq_len(20), each = 10); x <- round(runif(n, -2, 2), 3); off <- round(rnorm(n, 1, 2), 3)
y <- 1 - 0.6 * x + off + rnorm(20, 0, 0.9)[g] + rnorm(n, 0, 0.7)
write_data(data.frame(y = round(y, 4), x = x, off = off, g = sprintf("g%02d", g)), "offset")

set.seed(7103)
n <- 160; g <- rep(seq_len(16), each = 10); x1 <- round(rnorm(n), 3); x3 <- round(rnorm(n), 3)
y <- 3 + 0.5 * x1 - 0.25 * x3 + rnorm(16, 0, 0.8)[g] + rnorm(n)
write_data(data.frame(y = round(y, 4), x1 = x1, x2 = x1, x3 = x3, g = sprintf("g%02d", g)), "rankdef")

## ---- cases -------------------------------------------------------------------
sleep_new <- list(
  list(about = "known subjects, days beyond the observed range included", newdata = data.frame(Days = c(0, 4.5, 9, 12, 3), Subject = c("S308", "S308", "S350", "S372", "S335"))),
  list(about = "known and new subjects mixed", newdata = data.frame(Days = c(0, 5, 9, 2, 7), Subject = c("S308", "NEW1", "S309", "NEW2", "NEW1"))))
lmm_case("sleepstudy_int", "sleepstudy", "Reaction ~ 1 + Days", "(1 | Subject)", "Subject", extras = TRUE,
         about = "random intercept")
lmm_case("sleepstudy_slope", "sleepstudy", "Reaction ~ 1 + Days", "(1 + Days | Subject)", "Subject", extras = TRUE,
         predict = sleep_new, about = "correlated random intercept and slope")
lmm_case("sleepstudy_slope_indep", "sleepstudy", "Reaction ~ 1 + Days", "(1 + Days || Subject)", "Subject", extras = TRUE,
         random_expanded = c("(1 | Subject)", "(0 + Days | Subject)"), about = "uncorrelated random intercept and slope")
lrt_case("sleepstudy_lrt_int_vs_slope", "sleepstudy_int", "sleepstudy_slope")
lrt_case("sleepstudy_lrt_indep_vs_slope", "sleepstudy_slope_indep", "sleepstudy_slope")
lmm_case("dyestuff", "dyestuff", "Yield ~ 1", "(1 | Batch)", "Batch", extras = TRUE)
lmm_case("dyestuff2", "dyestuff2", "Yield ~ 1", "(1 | Batch)", "Batch", about = "the variance estimate is exactly 0 (singular)")
lmm_case("penicillin", "penicillin", "diameter ~ 1", c("(1 | plate)", "(1 | sample)"), c("plate", "sample"), extras = TRUE, about = "fully crossed")
lmm_case("pastes", "pastes", "strength ~ 1", "(1 | batch/cask)", c("batch", "cask"),
         random_expanded = c("(1 | batch)", "(1 | batch:cask)"), about = "nested")
lmm_case("cake", "cake", "angle ~ 1 + recipe * temp", "(1 | recipe:replicate)", c("recipe", "temp", "replicate"), type3 = TRUE,
         emm = c("recipe", "temp"), extras = TRUE, about = "categorical fixed effects with interaction")
lmm_case("cake_main", "cake", "angle ~ 1 + recipe + temp", "(1 | recipe:replicate)", c("recipe", "temp", "replicate"), type3 = TRUE,
         emm = c("recipe", "temp"), about = "categorical fixed effects without interaction")
lmm_case("machines_int", "machines", "score ~ 1 + Machine", "(1 | Worker)", c("Machine", "Worker"))
lmm_case("machines_nested", "machines", "score ~ 1 + Machine", c("(1 | Worker)", "(1 | Worker:Machine)"), c("Machine", "Worker"), type3 = TRUE, emm = "Machine")
lmm_case("machines_slope", "machines", "score ~ 1 + Machine", "(0 + Machine | Worker)", c("Machine", "Worker"), type3 = TRUE, emm = "Machine",
         about = "one random effect per machine, 3 x 3 covariance")
lmm_case("oats", "oats", "yield ~ 1 + nitro + Variety", "(1 | Block/Variety)", c("Variety", "Block"), type3 = TRUE, emm = "Variety",
         random_expanded = c("(1 | Block)", "(1 | Block:Variety)"), about = "split plot, nested")
crossed_new <- list(
  list(about = "known subjects and items", newdata = data.frame(condition = c("congruent", "incongruent", "incongruent"), subject = c("sub01", "sub17", "sub40"), item = c("item01", "item12", "item24"))),
  list(about = "new subject, new item, both, and neither", newdata = data.frame(condition = c("incongruent", "congruent", "incongruent", "congruent"),
       subject = c("sub99", "sub02", "sub99", "sub02"), item = c("item03", "item77", "item77", "item03"))))
fc <- c("condition", "subject", "item")
lmm_case("crossed_int", "crossed", "rt ~ 1 + condition", c("(1 | subject)", "(1 | item)"), fc, about = "crossed intercepts", extras = TRUE)
lmm_case("crossed_slope_subj", "crossed", "rt ~ 1 + condition", c("(1 + condition | subject)", "(1 | item)"), fc, type3 = TRUE, emm = "condition",
         predict = crossed_new, extras = TRUE, about = "by-subject slope of a two-level factor")
lmm_case("crossed_slope_both", "crossed", "rt ~ 1 + condition", c("(1 + condition | subject)", "(1 + condition | item)"), fc, type3 = TRUE, emm = "condition",
         predict = crossed_new, about = "maximal model")
lmm_case("crossed_slope_indep", "crossed", "rt ~ 1 + cond_c", c("(1 + cond_c || subject)", "(1 | item)"), c("subject", "item"), type3 = TRUE,
         random_expanded = c("(1 | subject)", "(0 + cond_c | subject)", "(1 | item)"), about = "numeric +-0.5 coded condition, no correlation")
lrt_case("crossed_lrt_int_vs_slope", "crossed_int", "crossed_slope_subj")
lrt_case("crossed_lrt_subj_vs_both", "crossed_slope_subj", "crossed_slope_both")
lmm_case("weighted", "weighted", "y ~ 1 + x", "(1 + x | g)", "g", weights = "w", kr = FALSE,
         about = "observation weights: Var(e_i) = sigma^2 / w_i; Kenward-Roger left out because pbkrtest ignores weights")
lmm_case("weighted_int", "weighted", "y ~ 1 + x", "(1 | g)", "g", weights = "w", kr = FALSE, about = "observation weights, random intercept")
lmm_case("offset", "offset", "y ~ 1 + x", "(1 | g)", "g", offset = "off", kr = FALSE,
         about = "offset; Kenward-Roger left out because pbkrtest does not carry the offset")
lmm_case("rankdef", "rankdef", "y ~ 1 + x1 + x2 + x3", "(1 | g)", "g", about = "x2 equals x1, so one column is dropped")

## ---- batch ---------------------------------------------------------------------
if (wanted("sleepstudy_sim")) {
  d <- read_data("sleepstudy", "Subject")
  set.seed(515151)
  subj <- as.integer(d$Subject); S <- matrix(c(612.1, 9.6, 9.6, 35.07), 2); R <- chol(S)
  Y <- vapply(1:100, function(k) { b <- matrix(rnorm(36), 18) %*% R
    round(251.405 + 10.467 * d$Days + b[subj, 1] + b[subj, 2] * d$Days + rnorm(180, 0, 25.59), 3) }, numeric(180))
  colnames(Y) <- sprintf("y%03d", 1:100)
  write_data(cbind(data.frame(Subject = as.character(d$Subject), Days = d$Days), as.data.frame(Y)), "sleepstudy_sim")
  batch_case("sleepstudy_sim", "sleepstudy_sim", "1 + Days", "(1 + Days | Subject)", "Subject", colnames(Y),
             about = "100 responses simulated from the sleepstudy slope model (REML estimates rounded), one design")
}

## ---- large -----------------------------------------------------------------------
lmm_case("insteval", "InstEval", "y ~ 1 + service", c("(1 | s)", "(1 | d)", "(1 | dept)"), c("s", "d", "dept", "service"),
         profile = FALSE, kr = FALSE, light = TRUE, nrandom = 0, about = "73421 rows, three crossed factors")

write_index()
cat("\nDefault lme4 times (s)\n"); print(unlist(TIMINGS)); warnings()
