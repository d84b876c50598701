"""The machine room: how it is fast and safe.

It may change without notice; what users may import is re-exported above it.
"""
