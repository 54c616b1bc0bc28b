"""Training on Kubernetes: pure builders of the objects, and the launcher that follows them."""
