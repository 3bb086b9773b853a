# Fit the Gaussian models of MixedBench whose data an installed package has, by lme4; write data and results.
# Rscript mixedbench.R MODELS.csv OUT; called by mixedbench.py
suppressMessages(library(lme4))
arguments <- commandArgs(TRUE)
models <- read.csv(arguments[1], colClasses = "character")
out <- arguments[2]
options(contrasts = c("contr.treatment", "contr.treatment"))  # an ordered factor is coded as any other, as in Python

load_object <- function(package, object) {
  space <- new.env()
  suppressWarnings(data(list = object, package = package, envir = space))
  if (exists(object, space, inherits = FALSE)) return(as.data.frame(get(object, space)))
  as.data.frame(get(object, asNamespace(package)))
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

results <- list()
for (i in seq_len(nrow(models))) {
  m <- models[i, ]
  row <- list(key = m$key)
  row <- tryCatch({
    frame <- typed(load_object(m$package, m$object), m$types)
    write.csv(frame, file.path(out, paste0(m$key, ".csv")), row.names = FALSE)
    row$text <- paste(names(frame)[sapply(frame, is.factor)], collapse = ";")
    said <- character()
    row$seconds <- system.time(fit <- withCallingHandlers(
      lmer(as.formula(m$formula), frame),
      warning = function(w) { said <<- c(said, conditionMessage(w)); invokeRestart("muffleWarning") },
      message = function(w) { said <<- c(said, conditionMessage(w)); invokeRestart("muffleMessage") }))[["elapsed"]]
    c(row, loglik = as.numeric(logLik(fit)), nobs = nobs(fit), singular = isSingular(fit), p = length(fixef(fit)),
      said = gsub("[\n,\"]", " ", paste(said, collapse = " | ")), error = "")
  }, error = function(e) c(row, error = gsub("[\n,\"]", " ", conditionMessage(e))))
  results[[i]] <- row
}
columns <- c("key", "text", "seconds", "loglik", "nobs", "singular", "p", "said", "error")
table <- do.call(rbind, lapply(results, function(r) {
  as.data.frame(lapply(setNames(columns, columns), function(n) if (is.null(r[[n]])) NA else r[[n]]))
}))
write.csv(format(table, digits = 15, trim = TRUE), file.path(out, "lme4.csv"), row.names = FALSE)
