"""Adapters that learn which endpoints exist; each is an `epp_adapter.endpoints.EndpointSource`."""
