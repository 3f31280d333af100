"""Everything that defines the probabilistic model: pure PyTorch, one device.

Nothing here knows of ranks, shards of the vocabulary or pipeline stages; parallelism
enters through :mod:`model.networks.linears` (which layers are built) and through the caller, who
may run the denoiser's list of layers in pieces.

Shape letters, used in names (``x_BLD``) and docstrings throughout the project:

====== =====================================================================
``B``  samples of a micro-batch
``L``  positions of a sequence
``D``  width of the residual stream
``H``  attention heads, ``E`` the width of one head
``C``  width of the conditioning vector
``V``  real ids of the tokenizer; ``R`` rows of the embedding: V, [MASK], padding
``M``  positions at which the head runs
``K``  1 or L: a level for the whole sequence, or one for every position
====== =====================================================================
"""
