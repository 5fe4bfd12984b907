"""Size of a compressed image from its own header, before anything is decompressed.

A few hundred bytes of PNG or JPEG can claim a billion pixels, and OpenCV would allocate them; so
it would for a PNG chunk that claims more bytes than there are (seen with OpenCV 5.0).
"""

from __future__ import annotations

from ros_vla_accel.cloud.messages import WireError

_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
# Neither animations nor compressed text and colour profiles, which could inflate.
_PNG_CHUNKS = (b"IHDR", b"PLTE", b"IDAT", b"IEND", b"tRNS", b"gAMA", b"cHRM", b"sRGB", b"pHYs")
# ITU-T T.81, table B.1: start-of-frame markers carry the size; C4, C8 and CC are something else.
_JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_JPEG_BARE = frozenset(range(0xD0, 0xD8)) | {0x01}  # markers without a length


def image_size(content: memoryview, encoding: str) -> tuple[int, int]:
    """(height, width) in pixels of a ``png`` or ``jpeg``; raises WireError when it is neither."""
    size = _png_size(content) if encoding == "png" else _jpeg_size(content)
    if size is None:
        raise WireError(f"{content.nbytes} bytes are not a {encoding} image")
    return size


def _png_size(content: memoryview) -> tuple[int, int] | None:
    if bytes(content[:8]) != _PNG_SIGNATURE or content.nbytes < 33:
        return None
    position, kind = 8, b""
    while kind != b"IEND":
        end = position + 12 + int.from_bytes(content[position : position + 4], "big")
        kind = bytes(content[position + 4 : position + 8])
        if kind not in _PNG_CHUNKS or end > content.nbytes:
            return None
        if (kind == b"IHDR") != (position == 8) or (position == 8 and end != 33):
            return None
        position = end
    return int.from_bytes(content[20:24], "big"), int.from_bytes(content[16:20], "big")


def _jpeg_size(content: memoryview) -> tuple[int, int] | None:
    if bytes(content[:2]) != b"\xff\xd8":
        return None
    position = 2
    while position + 9 <= content.nbytes and content[position] == 0xFF:
        marker = content[position + 1]
        if marker in _JPEG_FRAMES:
            height = int.from_bytes(content[position + 5 : position + 7], "big")
            return height, int.from_bytes(content[position + 7 : position + 9], "big")
        if marker == 0xFF:  # fill byte
            position += 1
        elif marker in _JPEG_BARE:
            position += 2
        else:
            position += 2 + int.from_bytes(content[position + 2 : position + 4], "big")
    return None
