"""What people write first, and what Ray's documents advise: small honest programs to measure ours against."""
