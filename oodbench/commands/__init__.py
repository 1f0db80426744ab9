"""The larger commands, a file each, and what the command line does where something goes wrong."""
