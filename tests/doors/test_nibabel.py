"""Voxels of images are responses in the order of the mask, and maps are images of its space; so are
points of surfaces.
"""

import nibabel
import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_array_equal

import interlace_jax as interlace
from interlace_jax.doors.nibabel import read, read_surface

AFFINE = np.diag([2.0, 2.0, 3.0, 1.0])
ROWS = 24


def _images():
    rng = np.random.default_rng(0)
    inside = rng.uniform(size=(4, 3, 3)) < 0.6
    values = rng.normal(size=(ROWS, 4, 3, 3))
    images = [nibabel.Nifti1Image(v.astype(np.float32), AFFINE) for v in values]
    return images, nibabel.Nifti1Image(inside.astype(np.uint8), AFFINE), inside, values


def test_files_go_in_and_maps_come_out(tmp_path):
    images, mask, inside, values = _images()
    paths = [tmp_path / f"{i:02d}.nii.gz" for i in range(ROWS)]
    for path, image in zip(paths, images, strict=True):
        nibabel.save(image, path)
    nibabel.save(mask, tmp_path / "mask.nii.gz")
    volumes = read(paths, tmp_path / "mask.nii.gz")
    data = pd.DataFrame({"s": np.arange(ROWS) // 3, "x": np.arange(ROWS) % 3 - 1.0})
    many = interlace.fit_many("~ x + (1 | s)", data, responses=volumes.responses, progress=False)
    assert many.labels.names == ["i", "j", "k"]
    assert_array_equal(np.array(many.labels.tolist()), np.argwhere(inside))
    place = tuple(np.argwhere(inside)[5])
    by_hand = interlace.fit_many(
        "~ x + (1 | s)", data, responses=values[(slice(None), *place)].astype(np.float32)[:, None]
    )
    np.testing.assert_allclose(many.fe_params.loc[place], by_hand.fe_params.iloc[0], rtol=1e-6)
    t = many.test("x")["t"]
    nibabel.save(volumes.map(t), tmp_path / "t.nii.gz")
    back = nibabel.load(tmp_path / "t.nii.gz")
    assert_array_equal(back.affine, AFFINE)
    assert_array_equal(back.get_fdata()[inside], t.astype(np.float32))
    assert np.isnan(back.get_fdata()[~inside]).all()
    assert (volumes.map(t, outside=1.0).get_fdata()[~inside] == 1.0).all()
    assert volumes.adjacency().shape == (len(many),) * 2


def test_one_image_of_four_dimensions_is_the_same():
    images, mask, _, _ = _images()
    whole = nibabel.concat_images(images)
    assert_array_equal(read(whole, mask).responses.values, read(images, mask).responses.values)


def test_images_of_another_space_are_refused_by_name(tmp_path):
    images, mask, inside, _ = _images()
    moved = nibabel.Nifti1Image(np.zeros(inside.shape, np.float32), AFFINE + 0.1)
    nibabel.save(moved, tmp_path / "moved.nii.gz")
    with pytest.raises(ValueError, match=r"image '.*moved.nii.gz' has another affine"):
        read([images[0], tmp_path / "moved.nii.gz"], mask)
    flat = nibabel.Nifti1Image(np.zeros((4, 3, 2), np.float32), AFFINE)
    with pytest.raises(ValueError, match=r"image 1 has the shape \(4, 3, 2\), but the mask"):
        read([images[0], flat], mask)
    with pytest.raises(ValueError, match="images is empty"):
        read([], mask)
    with pytest.raises(ValueError, match="the image has the shape"):
        read(images[0], mask)


def test_a_map_needs_a_number_for_each_voxel():
    images, mask, inside, _ = _images()
    with pytest.raises(ValueError, match=f"the mask has {inside.sum()} voxels"):
        read(images, mask).map(np.zeros(3))


FACES = np.array([[0, 1, 2], [1, 2, 3], [2, 3, 4]], np.int32)


def _array(values, intent="NIFTI_INTENT_NONE"):
    return nibabel.gifti.GiftiDataArray(np.asarray(values), intent=intent)


def test_surfaces_go_in_and_maps_come_out(tmp_path):
    values = np.random.default_rng(0).normal(size=(ROWS, 5)).astype(np.float32)
    paths = [tmp_path / f"{i:02d}.func.gii" for i in range(ROWS)]
    for path, row in zip(paths, values, strict=True):
        image = nibabel.GiftiImage(darrays=[_array(row)])
        image.meta["AnatomicalStructurePrimary"] = "CortexLeft"
        nibabel.save(image, path)
    places = _array(np.zeros((5, 3), np.float32), "NIFTI_INTENT_POINTSET")
    triangles = _array(FACES, "NIFTI_INTENT_TRIANGLE")
    nibabel.save(nibabel.GiftiImage(darrays=[places, triangles]), tmp_path / "left.surf.gii")
    surface = read_surface(paths, tmp_path / "left.surf.gii")
    assert_array_equal(surface.responses.values, values)
    one = nibabel.GiftiImage(darrays=[_array(row) for row in values])
    assert_array_equal(read_surface(one, FACES).responses.values, values)
    near = np.zeros((5, 5), bool)
    for a, b, c in FACES:
        near[[a, b, c, b, c, a], [b, c, a, a, b, c]] = True
    assert_array_equal(surface.adjacency().toarray(), near)
    data = pd.DataFrame({"s": np.arange(ROWS) // 3, "x": np.arange(ROWS) % 3 - 1.0})
    many = interlace.fit_many("~ x + (1 | s)", data, responses=surface.responses, progress=False)
    t = many.test("x")["t"]
    nibabel.save(surface.map(t), tmp_path / "t.func.gii")
    back = nibabel.load(tmp_path / "t.func.gii")
    assert_array_equal(back.agg_data(), t.astype(np.float32))
    assert back.meta["AnatomicalStructurePrimary"] == "CortexLeft"


def test_surfaces_that_do_not_fit_are_refused():
    image = nibabel.GiftiImage(darrays=[_array(np.zeros(5, np.float32))])
    short = nibabel.GiftiImage(darrays=[_array(np.zeros(4, np.float32))])
    with pytest.raises(ValueError, match="array 1 has the shape"):
        read_surface([image, short], FACES)
    with pytest.raises(ValueError, match="points up to 4"):
        read_surface(short, FACES)
    with pytest.raises(ValueError, match="images is empty"):
        read_surface([], FACES)
    with pytest.raises(ValueError, match="the surface has 5 points"):
        read_surface(image, FACES).map(np.zeros(4))
