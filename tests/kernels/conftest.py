"""Scripts that need a process of their own are not collected, not even for doctests."""

collect_ignore_glob = ["aot.py", "record.py", "check_*.py", "compile_*.py", "candidates_*.py"]
