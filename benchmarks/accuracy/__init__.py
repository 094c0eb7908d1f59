"""What both accuracy studies share: trials, the search over options and architectures, tables."""
