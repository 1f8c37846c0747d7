"""What happens when: the SimPy processes of one cell."""
