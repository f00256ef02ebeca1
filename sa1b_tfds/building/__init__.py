"""Tars -> shards of prepared data: one task a tar, who runs it, what survives a crash."""
