"""Voxels of brain images as responses, and maps of results as images; needs nibabel."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import scipy

from ..many.columns import Labelled
from ..maps.neighbours import grid

try:
    import nibabel
except ImportError as err:
    raise ImportError(
        "interlace_jax.doors.nibabel needs nibabel: python -m pip install nibabel"
    ) from err

SAME = 1e-4  # largest difference of affines of one space, in their units (mm)


@dataclass(frozen=True, eq=False)
class Volumes:
    """Images of one space within a mask; made by `read`.

    >>> import nibabel
    >>> import numpy as np
    >>> from interlace_jax.doors.nibabel import read
    >>> images = nibabel.Nifti1Image(np.zeros((2, 2, 1, 5)), np.eye(4))
    >>> volumes = read(images, nibabel.Nifti1Image(np.ones((2, 2, 1)), np.eye(4)))
    >>> volumes.responses.columns.tolist()
    [(0, 0, 0), (0, 1, 0), (1, 0, 0), (1, 1, 0)]
    >>> volumes.adjacency().toarray().sum(0)
    array([2, 2, 2, 2])
    """

    responses: Labelled = field(repr=False)
    "(images, voxels) for `fit_many(responses=)`, labelled `i j k`, voxels in C order."
    mask: np.ndarray = field(repr=False)
    "(i, j, k) bool."
    affine: np.ndarray = field(repr=False)
    "(4, 4) from voxels to mm."

    def adjacency(self, corners: bool = False) -> scipy.sparse.csr_array:
        """Which voxels are neighbours, as `many.clusters` takes it: those that share a face, or
        with `corners` an edge or a corner.
        """
        return grid(self.mask, corners)

    def map(self, values: Any, outside: float = np.nan) -> nibabel.Nifti1Image:
        """An image (float32) of one number for each voxel of the mask.

        values: (voxels,) in the order of the models, as `many.test(...)["t"]`. outside: the number
        of all other voxels; 1.0 suits p-values.
        """
        values = np.asarray(values, float)
        if values.shape != (self.mask.sum(),):
            raise ValueError(
                f"values has the shape {values.shape}, but the mask has {self.mask.sum()} voxels: "
                "give a number for each"
            )
        found = np.full(self.mask.shape, outside, np.float32)
        found[self.mask] = values
        return nibabel.Nifti1Image(found, self.affine)


def read(images: Any, mask: Any) -> Volumes:
    """Read the voxels of a mask from images, one for each row of the data.

    images: paths or images of nibabel, three-dimensional, in the order of the rows; or one image
    of four dimensions. mask: a path or an image; voxels that are not 0 are in.

    Raises ValueError for an image whose shape or affine is not that of the mask.

    >>> import nibabel
    >>> import numpy as np
    >>> from interlace_jax.doors.nibabel import read
    >>> rng = np.random.default_rng(0)
    >>> images = nibabel.Nifti1Image(rng.normal(size=(2, 2, 1, 180)), np.eye(4))
    >>> volumes = read(images, nibabel.Nifti1Image(np.ones((2, 2, 1)), np.eye(4)))
    >>> sleep, responses = interlace_jax.load_dataset("sleepstudy"), volumes.responses
    >>> many = interlace_jax.fit_many("~ Days + (1 | Subject)", sleep, responses=responses)
    >>> volumes.map(many.test("Days")["t"]).shape
    (2, 2, 1)
    """
    mask = _opened(mask)
    inside = np.asanyarray(mask.dataobj) != 0
    affine = np.asarray(mask.affine)
    if isinstance(images, str | os.PathLike) or hasattr(images, "dataobj"):
        values = _of_one(images, inside, affine)
    else:
        values = _of_many(list(images), inside, affine)
    places = pd.MultiIndex.from_arrays(np.nonzero(inside), names=("i", "j", "k"))
    return Volumes(Labelled(values, places), inside, affine)


def _opened(image: Any) -> Any:
    return image if hasattr(image, "dataobj") else nibabel.load(image)


def _of_one(image: Any, inside: np.ndarray, affine: np.ndarray) -> np.ndarray:
    image = _opened(image)
    _check_space(image, inside, affine, "the image", 4)
    return np.ascontiguousarray(np.asanyarray(image.dataobj)[inside].T)


def _of_many(images: Sequence[Any], inside: np.ndarray, affine: np.ndarray) -> np.ndarray:
    rows = []
    for number, image in enumerate(images):
        opened = _opened(image)
        name = repr(os.fspath(image)) if isinstance(image, str | os.PathLike) else str(number)
        _check_space(opened, inside, affine, f"image {name}", 3)
        rows.append(np.asanyarray(opened.dataobj)[inside])
    if not rows:
        raise ValueError("images is empty: give one for each row of the data")
    return np.stack(rows)


def _check_space(image: Any, inside: np.ndarray, affine: np.ndarray, name: str, ndim: int) -> None:
    if len(image.shape) != ndim or image.shape[:3] != inside.shape:
        raise ValueError(f"{name} has the shape {image.shape}, but the mask {inside.shape}")
    if np.abs(np.asarray(image.affine) - affine).max() > SAME:
        raise ValueError(
            f"{name} has another affine than the mask: resample all images to one space first"
        )
