"""Tars -> shards of prepared data: one task a tar, and what survives a crash."""
