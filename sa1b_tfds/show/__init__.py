"""Pictures of images and their masks: in notebooks, on contact sheets, on an HTML page.

The largest masks are drawn first. A mask's id decides its colour, so it is the same everywhere.
"""

from etils import epy as _epy

with _epy.lazy_api_imports(globals()):
    from sa1b_tfds.show.axes import show_box, show_mask, show_masks_on_image, show_points
    from sa1b_tfds.show.page import make_page
    from sa1b_tfds.show.sheet import contact_sheet

__all__ = [
    "contact_sheet",
    "make_page",
    "show_box",
    "show_mask",
    "show_masks_on_image",
    "show_points",
]
