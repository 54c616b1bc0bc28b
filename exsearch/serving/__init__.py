"""The agent as a service: KServe's protocols and OpenAI's, limits, metrics, a playground."""
