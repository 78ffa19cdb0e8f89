# ruff: noqa
from igm_cli.core.inference.engine import check_method, invert, invert_batch
from igm_cli.core.types import METHODS, Inversion, InversionSettings, KPoint

__all__ = ["METHODS", "Inversion", "InversionSettings", "KPoint", "check_method", "invert", "invert_batch"]
