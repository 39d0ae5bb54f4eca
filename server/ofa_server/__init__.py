"""The `ofa` command: model repositories for Triton, and Triton itself on a bare machine."""
