"""Presets and suites: YAML files, a folder a command."""
