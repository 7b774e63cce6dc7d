"""What pre-training is worth."""
