"""The backend that Keras has in this process: torch, unless KERAS_BACKEND names another."""

from __future__ import annotations

import importlib.util
import os

os.environ.setdefault("KERAS_BACKEND", "torch")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
# keras_cv_attention_models is of Keras 2; TensorFlow asks when it is imported.
os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")
# What is compiled here runs once: as fast to compile as it gets.
os.environ.setdefault(
    "XLA_FLAGS",
    "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true --xla_cpu_use_fusion_emitters=false",
)

import pytest

# Without the extra `keras`; in CI it must be there.
collect_ignore_glob = ["test_*.py"] if importlib.util.find_spec("keras") is None and not os.environ.get("CI") else []
# Keras on torch turns its variables into arrays in a way that NumPy 2 warns of.
KERASS_OWN = "ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"


def pytest_itemcollected(item: pytest.Item) -> None:
    item.add_marker(pytest.mark.filterwarnings(KERASS_OWN))
