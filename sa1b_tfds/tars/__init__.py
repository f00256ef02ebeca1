"""Bytes -> (jpeg, json) pairs: what a tar is called, its members, its index, its forward stream."""
