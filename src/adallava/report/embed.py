"""Put an image into the page itself."""

import base64
import io
import math

from PIL import Image

_LADDER = ((352, 85), (288, 82), (288, 70), (224, 70), (160, 60), (112, 45))
"""(side in pixels of a square, JPEG quality), best first; other shapes have as many pixels."""


def data_uri(image: Image.Image, allowance_bytes: int) -> str:
    """Return the image as a JPEG `data:` URI, as large and good as `allowance_bytes` allows.

    Where even the smallest size is larger than that, the smallest is returned.
    """
    uri = ""
    for side_px, quality in _LADDER:
        small = image.copy()
        longer_px = round(side_px * math.sqrt(max(image.size) / min(image.size)))
        small.thumbnail((longer_px, longer_px), Image.Resampling.LANCZOS)
        buffer = io.BytesIO()
        small.convert("RGB").save(buffer, "JPEG", quality=quality, optimize=True, subsampling=0)
        uri = "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
        if len(uri) <= allowance_bytes:
            break
    return uri
