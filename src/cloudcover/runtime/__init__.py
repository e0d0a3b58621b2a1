"""What a process needs of its machine: files, devices, GPU slots, processes, locks."""
