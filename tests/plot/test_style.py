"""Names beside axes."""

from interlace_jax.plot import style


def test_long_names_of_levels_keep_their_ends_and_get_room():
    assert style._short("short") == "short"
    name = "a school with a very long name, number 17"
    assert style._short(name).endswith("name, number 17") and len(style._short(name)) == 33
    assert style._name_width([name, "b"]) > 1.5 and style._name_width(["S1"]) == 0.0
