"""Images of bright blobs at known places, and where such blobs are found again."""

import numpy as np

from bregma.geometry import Frame
from bregma.schema import schema_from_dict
from bregma.types import ArrayImage, Case, LandmarkSet

LEFT, RIGHT, MIDDLE, TOP = range(4)
BRIGHTNESS = (1.0, 0.8, 0.65, 0.9)


def blob_schema(flip="swap"):
    """Four points; the left and the right one are a mirror pair."""
    names = ("left", "right", "middle", "top")
    data = {"name": "blobs", "title": "Blobs", "landmarks": [{"name": n, "label": n} for n in names], "flip": flip}
    return schema_from_dict(data | {"mirror_pairs": [["left", "right"]]}, where="test")


def render(points, shape, sigma=3.0, brightness=BRIGHTNESS):
    """Gaussian blobs on black, as float32."""
    y, x = np.mgrid[0 : shape[0], 0 : shape[1]]
    sigma_x, sigma_y = np.broadcast_to(sigma, 2)
    blobs = [
        b * np.exp(-0.5 * (((x - px) / sigma_x) ** 2 + ((y - py) / sigma_y) ** 2))
        for (px, py), b in zip(points, brightness, strict=True)
    ]
    return np.sum(blobs, axis=0).astype(np.float32)


def blob_case(points, shape, *, name="a", spacing=None, status=None, scale=1000.0, offset=200.0, sigma=3.0):
    """A labelled case whose pixels run from ``offset`` to ``offset + scale``."""
    image = offset + scale * render(points, shape, sigma)
    frame = Frame(shape, spacing, "none" if spacing is None else "user")
    return Case(name, name, ArrayImage(image), frame, LandmarkSet(points, status))


def centroid(image, near, radius=9):
    """Centre of mass of what stands out within ``radius`` of a point, found anew about itself a few times."""
    at = np.asarray(near, dtype=float)
    y, x = np.mgrid[0 : image.shape[0], 0 : image.shape[1]]
    for _ in range(4):
        window = np.hypot(x - at[0], y - at[1]) <= radius
        floor = np.median(image[window & (np.hypot(x - at[0], y - at[1]) > radius - 2)])
        weight = np.where(window, np.clip(image - floor - 0.2 * (image[window].max() - floor), 0, None), 0)
        at = np.array([(weight * x).sum(), (weight * y).sum()]) / weight.sum()
    return at
