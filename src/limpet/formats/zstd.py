"""The one place that knows where Python keeps zstd: `compression.zstd` from 3.14 on (PEP 784)."""

import sys

if sys.version_info >= (3, 14):
    from compression.zstd import (
        ZstdCompressor,
        ZstdDecompressor,
        ZstdError,
        ZstdFile,
        zstd_version,
    )
else:
    from backports.zstd import (
        ZstdCompressor,
        ZstdDecompressor,
        ZstdError,
        ZstdFile,
        zstd_version,
    )

__all__ = ["ZstdCompressor", "ZstdDecompressor", "ZstdError", "ZstdFile", "zstd_version"]
