import numpy as np
import pytest
from PIL import Image

from adallava.errors import InputError
from adallava.report.patches import draw_kept_patches, square_grid

GRID = (4, 4)
GREEN = (0, 160, 60)


def cell_of(drawn: Image.Image, index: int, grid: tuple[int, int] = GRID) -> np.ndarray:
    """Return the inner half of a patch, without its outline: [rows, columns, 3]."""
    cell = drawn.width // grid[1]
    row, column = divmod(index, grid[1])
    inner = slice(cell // 4, 3 * cell // 4)
    patch = np.asarray(drawn)[row * cell : (row + 1) * cell, column * cell : (column + 1) * cell]
    return patch[inner, inner]


def test_kept_patches_keep_their_colour_and_dropped_ones_fade() -> None:
    drawn = draw_kept_patches(Image.new("RGB", (64, 64), GREEN), [0, 5, 15], GRID)

    for index in range(16):
        inside = cell_of(drawn, index)
        if index in (0, 5, 15):
            assert (inside == GREEN).all()
        else:
            assert inside.min() > 120, "a dropped patch is faint"
            assert np.ptp(inside.reshape(-1, 3).mean(axis=0)) < 40, "a dropped patch is nearly grey"


def test_patch_indices_run_row_by_row_from_the_top_left() -> None:
    drawn = np.asarray(draw_kept_patches(Image.new("RGB", (64, 64), GREEN), [1], (2, 4))).astype(int)

    ys, xs = np.nonzero((drawn == GREEN).all(axis=2))
    cell = drawn.shape[0] // 2

    assert ys.min() >= 0
    assert ys.max() < cell
    assert cell <= xs.min()
    assert xs.max() < 2 * cell


def test_an_outline_surrounds_a_kept_region_but_does_not_cross_it() -> None:
    drawn = draw_kept_patches(Image.new("RGB", (64, 64), GREEN), [5, 6], GRID)
    pixels, cell = np.asarray(drawn).astype(int), drawn.width // 4

    middle_row = pixels[cell + cell // 2]
    assert (middle_row[cell] < 60).all(), "the left edge of the region is dark"
    assert (middle_row[3 * cell - 1] < 60).all(), "so is its right edge"
    assert tuple(middle_row[2 * cell]) == GREEN, "there is no line between two kept patches"


@pytest.mark.parametrize("size", [(1, 1), (28, 28), (400, 100), (100, 400), (3000, 2000)])
@pytest.mark.parametrize("grid", [(4, 4), (16, 16), (24, 24)])
def test_any_size_gives_whole_patches_in_a_legible_square(size: tuple[int, int], grid: tuple[int, int]) -> None:
    drawn = draw_kept_patches(Image.new("RGB", size, GREEN), [0], grid)

    assert drawn.mode == "RGB"
    assert drawn.width == drawn.height
    assert 448 <= drawn.width <= 1024
    assert drawn.width % grid[1] == 0


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16", "I", "F"])
def test_every_mode_can_be_drawn(mode: str) -> None:
    levels = np.linspace(0, 250, 64 * 64).reshape(64, 64)
    if mode == "I;16":
        image = Image.fromarray((levels * 200).astype(np.uint16))
    else:
        image = Image.fromarray(levels.astype(np.uint8)).convert(mode)

    drawn = np.asarray(draw_kept_patches(image, range(16), GRID)).astype(int)

    assert drawn[10:200].mean() < drawn[-200:-10].mean() - 50, "what is dark stays darker than what is light"


def test_transparency_is_laid_on_white() -> None:
    drawn = draw_kept_patches(Image.new("RGBA", (32, 32), (255, 0, 0, 0)), range(16), GRID)

    assert (cell_of(drawn, 5) == 255).all()


def test_merged_patches_get_a_ring_each_and_the_rest_fades_less() -> None:
    image = Image.new("RGB", (64, 64), (40, 40, 40))
    merged = draw_kept_patches(image, [5], GRID, merged=True)
    dropped = draw_kept_patches(image, [5], GRID)

    assert (cell_of(merged, 5)[20:30, 20:30] == 40).all(), "within the ring the picture shows"
    assert (cell_of(merged, 0) < cell_of(dropped, 0)).all(), "what is merged stays darker than what is dropped"


def test_keeping_nothing_fades_everything() -> None:
    drawn = np.asarray(draw_kept_patches(Image.new("RGB", (64, 64), GREEN), [], GRID))

    assert drawn.min() > 120


@pytest.mark.parametrize("kept", [[-1], [16], [0, 99]])
def test_an_index_outside_the_grid_is_refused(kept: list[int]) -> None:
    with pytest.raises(InputError, match=r"outside a grid of 4 x 4.*0 to 15"):
        draw_kept_patches(Image.new("RGB", (8, 8)), kept, GRID)


def test_a_grid_without_patches_is_refused() -> None:
    with pytest.raises(InputError, match="0 x 4 has no patches"):
        draw_kept_patches(Image.new("RGB", (8, 8)), [], (0, 4))


@pytest.mark.parametrize(("tokens", "grid"), [(16, (4, 4)), (576, (24, 24)), (577, None), (0, None), (1, (1, 1))])
def test_square_grid(tokens: int, grid: tuple[int, int] | None) -> None:
    assert square_grid(tokens) == grid


def test_the_given_image_is_left_as_it_was() -> None:
    image = Image.new("RGB", (448, 448), GREEN)
    before = image.tobytes()
    draw_kept_patches(image, [0], GRID)

    assert image.tobytes() == before
