"""Networks, objectives, samplers and noise processes in pure PyTorch, for a single device.

Nothing here depends on ranks, vocabulary shards or pipeline stages. Parallelism enters through
:mod:`model.networks.linears` (which layers are built) and through the caller, which may run the
denoiser's list of layers in pieces.

Shape letters, used in names (``x_BLD``) and docstrings throughout the project:

====== =====================================================================
``B``  samples in a micro-batch
``L``  positions in a sequence
``D``  width of the residual stream
``H``  attention heads, ``E`` the width of one head
``C``  width of the conditioning vector
``V``  real ids of the tokenizer; ``R`` rows of the embedding: V, [MASK], padding
``M``  positions at which the head runs
``K``  1 or L: one noise level per sequence, or one per position
====== =====================================================================
"""
