"""What becomes of a request: the HTTP statuses that a load test tells apart."""

OK = "200"
REFUSED = "503"
"""At the door: there is too much to do."""
EXPIRED = "504"
"""Inside: its deadline could not be met any more."""
