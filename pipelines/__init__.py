"""The recurring E&M pipeline: its shape, where its pods go, and how it is run and scheduled."""
