"""What benchmarks/peers.py is made of: two workers that obey the same commands, data, sections and tables."""
