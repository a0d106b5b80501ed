"""What `make bench` measures: each module has a `measure()` that returns numbers; ratios come from one interleaved run."""
