"""Pictures of images and their masks: in notebooks, on contact sheets, on an HTML page.

Masks are drawn the largest first. A mask has the colour of its row in the example everywhere.
"""

from etils import epy as _epy

with _epy.lazy_api_imports(globals()):
    from sa1b_tfds.show.axes import show_box, show_mask, show_masks_on_image, show_points
    from sa1b_tfds.show.batch import show_batch
    from sa1b_tfds.show.page import make_page
    from sa1b_tfds.show.sheet import contact_sheet

__all__ = [
    "contact_sheet",
    "make_page",
    "show_batch",
    "show_box",
    "show_mask",
    "show_masks_on_image",
    "show_points",
]
