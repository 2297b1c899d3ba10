import numpy as np
import torch
from PIL import Image

from pipeline.evaluation.pictures import grid, write_png


def test_images_lie_row_by_row_on_white() -> None:
    images = torch.arange(3, dtype=torch.uint8)[:, None, None, None].expand(3, 1, 2, 2)
    sheet = grid(images, columns=2)
    assert sheet.shape == (5, 5, 3)
    assert (sheet[:2, :2] == 0).all()
    assert (sheet[:2, 3:] == 1).all()
    assert (sheet[3:, :2] == 2).all()
    assert (sheet[3:, 3:] == 255).all()


def test_colour_channels_keep_their_order() -> None:
    image = torch.tensor([10, 20, 30], dtype=torch.uint8)[None, :, None, None]
    assert grid(image).tolist() == [[[10, 20, 30]]]


def test_png_holds_the_sheet_and_equal_sheets_give_equal_bytes(tmp_path) -> None:
    sheet = grid(torch.randint(0, 256, (5, 3, 4, 4), dtype=torch.uint8))
    write_png(tmp_path / "a.png", sheet)
    write_png(tmp_path / "b.png", sheet)
    assert (np.asarray(Image.open(tmp_path / "a.png")) == sheet).all()
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
