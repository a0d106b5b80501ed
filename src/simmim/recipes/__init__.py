"""Complete runs as YAML: found by listing, read by `simmim.config`."""
