"""tokenext: renders and tokenizes a request once, in front of the Endpoint Picker."""
