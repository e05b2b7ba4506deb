"""The parts of `.ci/bench-failover`: what a client sees of a three-node cluster while something dies."""
