"""Typed configuration."""

from mlpf.config.loading import load_config, write_resolved
from mlpf.config.schema import Config

__all__ = ["Config", "load_config", "write_resolved"]
