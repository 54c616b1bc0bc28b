"""How good an agent is: answer and retrieval metrics, paired tests, the gate, the report."""
