"""What minifcn is called, needs and installs; pyproject.toml holds only the build backend and tool tables."""

from pathlib import Path

from setuptools import find_packages, setup

TESTING = ["pytest>=8", "hypothesis>=6"]

setup(
    name="minifcn",
    version="0.1.0",
    description="Fully convolutional networks from scratch on NumPy: small enough to read, strong enough to use",
    long_description=Path(__file__).with_name("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="MIT",
    license_files=["LICENSE"],
    python_requires=">=3.11",
    packages=[*find_packages(include=["minifcn", "minifcn.*"]), "minifcn.benchmarks"],
    package_dir={"minifcn.benchmarks": "benchmarks"},  # for `minifcn bench`
    package_data={
        "minifcn": ["py.typed"],
        "minifcn.kernels.cuda": ["*.cu", "*.cuh"],
        "minifcn.lab.page": ["*.html", "*.css", "*.js"],
    },
    install_requires=["numpy>=2", "pillow>=10", "tqdm>=4.60", "safetensors>=0.4", "threadpoolctl>=3.7"],
    extras_require={
        "cuda12": ["cupy-cuda12x[ctk]"],
        "cuda13": ["cupy-cuda13x[ctk]"],
        "plot": ["matplotlib"],
        "mpi": ["mpi4py>=4", "mpich"],
        "oracle": ["torch"],
        "browser": ["selenium>=4"],
        "test": TESTING,
        "dev": [*TESTING, "h5py", "matplotlib", "mypy>=1.10", "ruff>=0.6", "types-tqdm"],
    },
    entry_points={"console_scripts": ["minifcn = minifcn.cli:main"]},
)
