"""Matching of long documents: score pairs, search collections, encode streams (SMITH)."""
