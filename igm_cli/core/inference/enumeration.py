# ruff: noqa
from igm_cli.core.inference.reference import configurations
