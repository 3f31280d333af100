"""Architectures: one network per file, with the dataclass that configures it.

``model: {name: dit, ...}`` names the file and sets the dataclass's fields. The base classes are
:class:`model.networks.config.ModelConfig` and :class:`model.networks.base.Network`.
"""
