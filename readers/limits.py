"""How much an upload may ask for."""

from dataclasses import dataclass

MIB = 1 << 20
GIB = 1 << 30


@dataclass(frozen=True)
class Limits:
    """Caps on what a reader takes in. Every one is checked while reading, never taken from a header on trust."""

    max_members: int = 20_000_000
    """files in an archive, those that are skipped included"""
    max_index_bytes: int = 4 * GIB
    """what the names of an archive may take in memory"""
    max_name_bytes: int = 4096
    """one name inside an archive"""
    max_member_bytes: int = 64 * MIB
    """one image; a larger one is a rejected pair"""
    max_total_bytes: int = 1 << 40
    """everything read out of the upload, uncompressed; a member read twice counts twice"""
    max_ratio: int = 200
    """uncompressed over compressed bytes, once more than `ratio_floor_bytes` came out"""
    ratio_floor_bytes: int = 64 * MIB
    max_line_bytes: int = MIB
    """one row of a table of text, in characters, and one caption file, in bytes"""
    max_columns: int = 1000
    max_rows: int = 20_000_000
    max_caption_chars: int = 10_000
    max_key_bytes: int = 1024
    """of UTF-8: keys stand in an index of PostgreSQL, whose rows have 2,704 bytes at most; `#2` may be added"""
    max_extra_chars: int = MIB
    """all other columns of one row together"""
    max_json_depth: int = 32
    max_json_bytes: int = 512 * MIB
    """one JSON document that describes many images (COCO); it is read as a stream"""
    max_waiting: int = 1_000_000
    """halves of pairs held while their other half may still come (webdataset)"""
    max_header_bytes: int = 16 * MIB
    """the header of a safetensors file"""
    max_embedding_width: int = 65_536
    block_rows: int = 4096
    """embeddings given out at a time, fewer where they are wide"""
    block_bytes: int = 64 * MIB
    """float32 of one side of a block of embeddings; also the aim for a batch of parquet rows"""
    parquet_memory_bytes: int = 4 * GIB
    """address space of the process that reads parquet"""
    parquet_seconds: int = 600
    """how long that process may take over a few rows"""
    max_row_group_bytes: int = 8 * GIB
    """one column of one parquet row group, uncompressed, as its footer declares it"""


@dataclass(frozen=True)
class DecoderLimits:
    """What the processes that decode images may ask for, shared by all images of an upload."""

    max_pixels: int
    thumbnails: tuple[int, ...]
    """longest sides of the small pictures that it makes, in pixels, ascending"""
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
