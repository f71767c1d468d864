"""Evolution: how rows of genes have children, and which of them survive. Pure functions of arrays."""
