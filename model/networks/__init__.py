"""Building blocks of the networks: base class, configuration, layers, attention and FLOP counts."""
