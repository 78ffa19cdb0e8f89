# ruff: noqa
from igm_cli.core.inference.direct import *
