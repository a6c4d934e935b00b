"""Measures mydumper2s3 beside its peers; started by scripts/bench.sh. Python's standard library only."""
