"""What everything stands on: draws, files, ranks, memory, the compiled extension."""
