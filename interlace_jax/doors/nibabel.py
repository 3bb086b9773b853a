"""Voxels of brain images and points of surfaces as responses, and maps of results as images; needs
nibabel.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import scipy

from ..many.columns import Labelled
from ..maps.neighbours import grid, mesh

try:
    import nibabel
except ImportError as err:
    raise ImportError(
        "interlace_jax.doors.nibabel needs nibabel: python -m pip install nibabel"
    ) from err

STRUCTURE = "AnatomicalStructurePrimary"  # which hemisphere: viewers look for it
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


@dataclass(frozen=True, eq=False)
class Surface:
    """Numbers at the points of a surface; made by `read_surface`.

    >>> import nibabel
    >>> import numpy as np
    >>> from interlace_jax.doors.nibabel import read_surface
    >>> images = nibabel.GiftiImage()
    >>> for row in np.arange(12, dtype=np.float32).reshape(3, 4):
    ...     images.add_gifti_data_array(nibabel.gifti.GiftiDataArray(row))
    >>> surface = read_surface(images, [[0, 1, 2], [1, 2, 3]])
    >>> surface.responses.values.shape
    (3, 4)
    >>> surface.adjacency().toarray().sum(0)
    array([2, 3, 3, 2])
    """

    responses: Labelled = field(repr=False)
    "(images, points) for `fit_many(responses=)`, labelled by the numbers of the points."
    faces: np.ndarray = field(repr=False)
    "(f, 3) points of the triangles."
    structure: str | None = None
    "The part of the brain, as the files name it: `CortexLeft`."

    def adjacency(self) -> scipy.sparse.csr_array:
        """Which points are neighbours, as `many.clusters` takes it: those that share a side of a
        triangle.
        """
        return mesh(self.faces, len(self.responses.columns))

    def map(self, values: Any) -> nibabel.GiftiImage:
        """A GIfTI image (float32) of one number for each point, to be saved as `.func.gii`.

        values: (points,) in the order of the models, as `many.test(...)["t"]`.
        """
        values = np.asarray(values, np.float32)
        points = len(self.responses.columns)
        if values.shape != (points,):
            raise ValueError(
                f"values has the shape {values.shape}, but the surface has {points} points: give a "
                "number for each"
            )
        found = nibabel.GiftiImage(darrays=[nibabel.gifti.GiftiDataArray(values)])
        if self.structure is not None:
            found.meta[STRUCTURE] = self.structure
        return found


def read_surface(images: Any, surface: Any) -> Surface:
    """Read numbers at the points of a surface, one image for each row of the data.

    images: paths (`.func.gii`, `.shape.gii`) or GIfTI images of nibabel with one array each, in the
    order of the rows; or one image with an array a row. surface: the path of a `.surf.gii` or its
    image, or the triangles themselves (f, 3). Points where nothing was measured, such as the medial
    wall, are models that cannot be fitted; `many.clusters` leaves them out.

    Raises ValueError for images of other numbers of points.

    >>> import nibabel
    >>> import numpy as np
    >>> from interlace_jax.doors.nibabel import read_surface
    >>> sleep, rng = interlace_jax.load_dataset("sleepstudy"), np.random.default_rng(0)
    >>> values = rng.normal(size=(180, 4)).astype(np.float32)
    >>> arrays = [nibabel.gifti.GiftiDataArray(row) for row in values]
    >>> images = nibabel.GiftiImage(darrays=arrays)
    >>> surface = read_surface(images, [[0, 1, 2], [1, 2, 3]])
    >>> given = dict(responses=surface.responses, progress=False)
    >>> many = interlace_jax.fit_many("~ Days + (1 | Subject)", sleep, **given)
    >>> surface.map(many.test("Days")["t"]).agg_data().shape
    (4,)
    """
    single = isinstance(images, str | os.PathLike) or hasattr(images, "darrays")
    opened = [_opened_surface(image) for image in ([images] if single else images)]
    rows = [array.data for image in opened for array in image.darrays]
    if not rows:
        raise ValueError("images is empty: give one for each row of the data")
    if not single and len(rows) != len(opened):
        raise ValueError("images must have one array each, or be one image with an array a row")
    faces = _faces(surface)
    for number, row in enumerate(rows):
        if row.shape != rows[0].shape or row.ndim != 1 or len(row) <= faces.max():
            raise ValueError(
                f"array {number} has the shape {row.shape}, but the first {rows[0].shape}, and the "
                f"triangles have points up to {faces.max()}"
            )
    places = pd.RangeIndex(len(rows[0]), name="point")
    return Surface(Labelled(np.stack(rows), places), faces, opened[0].meta.get(STRUCTURE))


def _opened_surface(image: Any) -> Any:
    return image if hasattr(image, "darrays") else nibabel.load(image)


def _faces(surface: Any) -> np.ndarray:
    if isinstance(surface, str | os.PathLike) or hasattr(surface, "darrays"):
        surface = _opened_surface(surface).agg_data("triangle")
    return np.asarray(surface, int)
