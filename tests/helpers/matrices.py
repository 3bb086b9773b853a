"""Matrices to factor, and derivatives by plain autodiff."""

import numpy as np


def positive(rng, q):
    A = rng.normal(size=(q, q + 3))
    return A @ A.T / q + np.eye(q)


def symmetric(rng, q):
    A = rng.normal(size=(q, q))
    return A + A.T
