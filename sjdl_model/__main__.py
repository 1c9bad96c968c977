"""`python -m sjdl_model` is `sjdl`, which is what torchrun needs."""

from .cli import cli

cli(prog_name="sjdl")
