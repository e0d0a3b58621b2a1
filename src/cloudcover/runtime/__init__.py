"""Interfaces to the machine: files, devices, GPU slots, processes and locks."""
