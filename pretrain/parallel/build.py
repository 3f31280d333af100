"""Choice of the engine for a layout."""

from pretrain.config import RunConfig
from pretrain.parallel.engine import Engine
from pretrain.parallel.mesh import Mesh
from pretrain.parallel.pipeline import PipelineEngine
from pretrain.parallel.zero import ZeroEngine


def build(config: RunConfig, mesh: Mesh) -> Engine:
    """DeepSpeed's pipeline engine where the mesh has stages, else its plain ZeRO engine."""
    return PipelineEngine(config, mesh) if mesh.pipe_size > 1 else ZeroEngine(config, mesh)
