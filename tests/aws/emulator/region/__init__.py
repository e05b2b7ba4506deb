"""An AWS region on this machine, for tests: what its parts are, README.md says."""
