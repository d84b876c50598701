"""The machine room: how it is fast and safe. May change without notice; what users may import is re-exported above it."""
