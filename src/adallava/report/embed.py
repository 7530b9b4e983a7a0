"""Put a picture into the page itself."""

import base64
import io

from PIL import Image

_LADDER = ((352, 85), (288, 82), (288, 70), (224, 70), (160, 60), (112, 45))
"""(side in pixels, JPEG quality), best first."""


def data_uri(image: Image.Image, allowance_bytes: int) -> str:
    """Return the picture as a JPEG `data:` URI, as large and good as `allowance_bytes` allows.

    Where even the smallest size is larger than that, the smallest is returned.
    """
    uri = ""
    for side_px, quality in _LADDER:
        small = image.copy()
        small.thumbnail((side_px, side_px), Image.Resampling.LANCZOS)
        buffer = io.BytesIO()
        small.convert("RGB").save(buffer, "JPEG", quality=quality, optimize=True, subsampling=0)
        uri = "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
        if len(uri) <= allowance_bytes:
            break
    return uri
