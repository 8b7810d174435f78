"""The phases, one file each. A step takes a `Task`, may run twice, and gives back a `Done`."""
