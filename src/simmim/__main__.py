"""`python -m simmim`, and `torchrun ... -m simmim`."""

from simmim.cli import main

main()
