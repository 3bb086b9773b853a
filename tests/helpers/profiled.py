"""Cases that profiles and intervals are compared in."""

SLOPE = "sleepstudy_slope_REML"


SDS = ["sd_(Intercept)|Subject", "cor_Days.(Intercept)|Subject", "sd_Days|Subject", "sigma"]
