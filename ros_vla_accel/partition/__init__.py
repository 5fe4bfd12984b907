"""RAPID's decision: when to infer, and whether on the edge or in the cloud (arXiv:2603.07949)."""
