"""The Hub: pushed folders, checkpoints and model cards."""
