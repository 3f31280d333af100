"""Packaging: what you see at the top level is what you import."""

from pathlib import Path

from setuptools import find_packages, setup

HARNESS = "lm_eval>=0.4.13,<0.5"
PACKAGES = ("configs", "data_pipeline", "model", "pretrain", "slurm", "tools")

# Tried together, on CPUs. `low` is each other package at its lower bound (lm_eval, mypy and ruff
# apart), `newest` the newest of its range:
#
#   Python  torch   megatron-core  deepspeed  transformers  others
#   3.11    2.8.0   0.16.1         0.19.8     5.23.0        low
#   3.11    2.13.0  0.16.1         0.19.8     5.24.0        newest
#   3.12    2.11.0  0.19.2         0.19.8     5.24.0        newest

setup(
    name="palimpsest",
    version="0.1.0",
    description="Distributed pretraining of large text diffusion models",
    long_description=Path(__file__).with_name("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.11,<3.13",
    package_dir={"": "."},
    packages=find_packages(
        include=[pattern for name in PACKAGES for pattern in (name, f"{name}.*")]
    ),
    package_data={
        "configs": ["*.yaml", "*/*.yaml", "slurm/examples/*.sbatch"],
        "tools.report": ["*.html"],
    },
    install_requires=[
        # The upper bound keeps pip from replacing an installed CPU build by a CUDA one.
        "torch>=2.8,<=2.13.0",
        # Before 0.19.8 it holds on to process groups that are destroyed, and the second run of one
        # process fails: `tools.verify`, and the tests' ranks.
        "deepspeed>=0.19.8,<0.20",
        # The newest for Python 3.11 is 0.16.1. From 0.18 on megatron-core imports Triton, which
        # it does not declare and a CPU build of torch does not bring.
        "megatron-core>=0.16.1,<0.20",
        "triton>=3.4,<3.8; python_version >= '3.12' and sys_platform == 'linux'",
        "datasets>=5,<6",
        "sentencepiece>=0.2,<0.3",
        "wandb>=0.30,<1",
        "submitit>=1.5,<2",
        "jinja2>=3.1.2,<4",
        "matplotlib>=3.8,<4",
        "numpy>=1.26,<3",
        "protobuf>=6.31.1,<8",
        "pyarrow>=21,<27",
        "pydantic>=2.12,<3",
        "PyYAML>=6.0.1,<7",
        "rouge-score>=0.1.2,<0.2",
        "sacrebleu>=2.6,<3",
        "safetensors>=0.8,<1",
        "tensorboard>=2.21,<3",
        "tokenizers>=0.23.1,<1",
        "tqdm>=4.66.3,<5",
        "typing-extensions>=4.14.1,<5",
        "zstandard>=0.22,<0.26",
    ],
    extras_require={
        "flash": ["flash-attn>=2.6,<3"],
        "harness": [HARNESS],
        "test": [
            HARNESS,
            "accelerate>=1.15,<2",
            "hypothesis>=6.100,<7",
            "mypy>=2.4,<3",
            "peft>=0.21,<0.22",
            "pytest>=8,<10",
            "pytest-timeout>=2.3,<3",
            "pytest-xdist>=3.6,<4",
            "ruff>=0.15,<0.18",
            "transformers>=5.23,<6",
            "types-PyYAML>=6",
            "types-tqdm>=4.66",
        ],
    },
    classifiers=[
        "Private :: Do Not Upload",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
    ],
)
