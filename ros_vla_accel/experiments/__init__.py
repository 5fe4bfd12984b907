"""Closed loop in process under a virtual clock: collect, train, evaluate."""
