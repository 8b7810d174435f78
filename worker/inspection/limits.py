"""What a decoder may ask for."""

from dataclasses import dataclass

from store.thumbnails import SIZES


@dataclass(frozen=True)
class DecoderLimits:
    """Shared by all images of an upload."""

    max_pixels: int
    thumbnails: tuple[int, ...] = SIZES
    """longest sides of the small pictures that it makes, in pixels"""
    memory_bytes: int = 4 << 30
    """address space of the process that decodes"""
    seconds: int = 30
    """for one image, of the clock and of the processor"""
    max_broken: int = 20
    """images that break the decoder or hold it up; with one more the upload is refused"""
    processes: int = 4
    """at most, and no more than there are cores"""
    batch_images: int = 64
    batch_bytes: int = 4 << 20
