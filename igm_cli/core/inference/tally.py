# ruff: noqa
from igm_cli.core.inference.call_counter import CallCounter as Tally, with_gflop
