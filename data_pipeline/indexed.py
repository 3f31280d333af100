"""megatron-core's indexed dataset: the reader and writer of `.bin`/`.idx`, imported once, here.

Megatron's format, so that users can bring and take corpora: `.bin` holds token ids end to
end, `.idx` the length and the byte offset of each sequence and where documents begin.
"""

import struct
import warnings
from pathlib import Path
from types import ModuleType

# Magic number, version, code of the dtype, number of sequences, number of documents + 1.
_HEADER = struct.Struct("<9sQBQQ")


def indexed_dataset() -> ModuleType:
    """megatron-core's module, without its advice to install Transformer Engine or Apex.

    The import takes five seconds, so it waits until shards are read or written.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from megatron.core.datasets import indexed_dataset as module
    # It logs what it opens by the first rank, and warns where there are no ranks.
    warnings.filterwarnings("ignore", "Could not determine rank", UserWarning)
    return module


def is_expected_index(idx: Path, *, vocab_size: int, documents: int) -> bool:
    """Whether an `.idx` file has the length and header of one with this number of documents.

    There is one sequence a document. megatron-core trusts the header: a damaged one makes it
    read past the end of the file.
    """
    module = indexed_dataset()
    code = module.DType.code_from_dtype(token_dtype(vocab_size))
    with idx.open("rb") as file:
        header = file.read(_HEADER.size)
    # A length and an offset of each sequence, and the first sequence of each document.
    size = _HEADER.size + (4 + 8) * documents + 8 * (documents + 1)
    expected = _HEADER.pack(b"MMIDIDX\0\0", 1, code, documents, documents + 1)
    return header == expected and idx.stat().st_size == size


def token_dtype(vocab_size: int) -> type:
    """numpy type of the ids on disk; [MASK], which is id V, fits too."""
    return indexed_dataset().DType.optimal_dtype(vocab_size + 1)
