"""Bytes -> (jpeg, json) pairs: a tar's name, its members, its index, its forward stream."""
