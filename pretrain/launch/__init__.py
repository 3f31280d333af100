"""Starting ranks on this machine, and what stands around a rank: signals, watchdog, devices."""
