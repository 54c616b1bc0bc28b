"""The `SearchAgent` resource: one agent, indexed, trained every week, served, and kept so."""
