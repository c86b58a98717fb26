"""Networks that are built for one size of image."""

from typing import Any

TIMM = "tu-"
"""SMP's prefix of encoders that timm builds."""


def sized(encoder: str, size: int) -> dict[str, Any]:
    """What timm must be told where windows depend on the image size: nothing, of most encoders.

    Swin built for its native 224 runs at other sizes without complaint but computes something else (7 % of the largest
    logit for Swin, 43 % for SwinV2 at 512, with identical weights).
    """
    if not encoder.removeprefix(TIMM).startswith("swin"):
        return {}
    return {"img_size": size + -size % 32, "strict_img_size": False}
