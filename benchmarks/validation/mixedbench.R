# Fit the models of MixedBench whose data an installed package has; write data and results.
# Rscript mixedbench.R MODELS.csv OUT PATIENCE; called by mixedbench.py
# Normal responses by lmer, ordered categories by clmm, others by glmmTMB, of which binomial and Poisson by glmer too.
suppressMessages({library(lme4); library(glmmTMB); library(ordinal)})
arguments <- commandArgs(TRUE)
models <- read.csv(arguments[1], colClasses = "character")
out <- arguments[2]
patience <- as.numeric(arguments[3])  # CPU seconds a fit
options(contrasts = c("contr.treatment", "contr.treatment"))  # an ordered factor is coded as any other, as in Python

load_object <- function(places, object) {
  for (package in strsplit(places, ";")[[1]]) {
    space <- new.env()
    suppressWarnings(data(list = object, package = package, envir = space))
    if (exists(object, space, inherits = FALSE)) return(as.data.frame(get(object, space)))
    if (exists(object, asNamespace(package))) return(as.data.frame(get(object, asNamespace(package))))
  }
  stop("no such data")
}

typed <- function(frame, types) {
  for (pair in strsplit(types, ";")[[1]]) {
    name <- sub("=.*", "", pair)
    if (name %in% names(frame)) frame[[name]] <- factor(frame[[name]])
  }
  for (name in names(frame)) {
    if (is.factor(frame[[name]])) frame[[name]] <- factor(as.character(frame[[name]]))
    if (is.matrix(frame[[name]])) frame[[name]] <- NULL
  }
  frame
}

programs <- function(m) {
  if (m$family == "gaussian") return("lmer")
  if (m$family == "ordinal") return("clmm")
  if (m$family %in% c("binomial", "poisson") && m$zero_inflation == "") c("glmmTMB", "glmer") else "glmmTMB"
}

fitted_by <- function(program, m, frame) {
  formula <- as.formula(m$formula)
  if (program == "lmer") return(lmer(formula, frame))
  if (program == "clmm") {
    # its modes by default are good to 1e-4, its log L to 1e-5
    return(clmm(formula, data = frame, link = m$link, control = clmm.control(gradTol = 1e-8)))
  }
  family <- list(binomial = binomial, poisson = poisson, nbinom2 = nbinom2, gamma = Gamma, beta = beta_family)[[m$family]]
  given <- list(formula, frame, family = family(m$link))
  if (nzchar(m$weights)) given$weights <- frame[[m$weights]]
  if (nzchar(m$zero_inflation)) given$ziformula <- as.formula(m$zero_inflation)
  do.call(program, given)
}

coefficients_of <- function(program, fit) {
  switch(program, clmm = fit$beta, glmmTMB = fixef(fit)$cond, fixef(fit))
}

clean <- function(said) gsub("[\n,\"]", " ", paste(said, collapse = " | "))

fit_one <- function(program, m, frame) {
  row <- list(key = m$key, program = program, text = paste(names(frame)[sapply(frame, is.factor)], collapse = ";"))
  said <- character()
  note <- function(restart) function(w) { said <<- c(said, conditionMessage(w)); invokeRestart(restart) }
  tryCatch({
    setTimeLimit(cpu = patience, transient = TRUE)
    seconds <- system.time(fit <- withCallingHandlers(
      fitted_by(program, m, frame), warning = note("muffleWarning"), message = note("muffleMessage")))
    setTimeLimit()
    row$seconds <- seconds[["user.self"]] + seconds[["sys.self"]]
    singular <- if (program %in% c("lmer", "glmer")) isSingular(fit) else NA
    c(row, loglik = as.numeric(logLik(fit)), nobs = nobs(fit), singular = singular,
      p = length(coefficients_of(program, fit)), said = clean(said), error = "")
  }, error = function(e) { setTimeLimit(); c(row, error = clean(conditionMessage(e))) })
}

results <- list()
for (i in seq_len(nrow(models))) {
  m <- models[i, ]
  frame <- tryCatch(load_object(m$places, m$object), error = function(e) NULL)
  if (is.null(frame)) next
  for (name in intersect(m$response, if (m$family == "ordinal") names(frame))) {
    frame[[name]] <- as.integer(factor(frame[[name]]))
  }
  frame <- typed(frame, m$types)
  write.csv(frame, file.path(out, paste0(m$key, ".csv")), row.names = FALSE)
  for (name in intersect(m$response, if (m$family == "ordinal") names(frame))) {
    frame[[name]] <- factor(frame[[name]], ordered = TRUE)
  }
  for (program in programs(m)) results[[length(results) + 1]] <- fit_one(program, m, frame)
}
columns <- c("key", "program", "text", "seconds", "loglik", "nobs", "singular", "p", "said", "error")
table <- do.call(rbind, lapply(results, function(r) {
  as.data.frame(lapply(setNames(columns, columns), function(n) if (is.null(r[[n]])) NA else r[[n]]))
}))
write.csv(format(table, digits = 15, trim = TRUE), file.path(out, "theirs.csv"), row.names = FALSE)
