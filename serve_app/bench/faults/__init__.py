"""What a service on a cluster loses when it is updated, scaled, or something of it dies."""
