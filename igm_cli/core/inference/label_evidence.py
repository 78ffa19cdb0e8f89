# ruff: noqa
from igm_cli.core.inference.candidates import predictions
