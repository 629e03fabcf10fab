"""The Helm chart: what it renders, refuses and keeps. `make chart` runs all of it."""
