# ruff: noqa
from igm_cli.core.inference.one_of_each import EXHAUSTIVE_LIMIT
