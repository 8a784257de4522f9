"""Guarded lines, broken one at a time: for each some test must fail. `make mutants` runs them; see `table.toml`."""
