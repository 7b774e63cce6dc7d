"""What a model is: the configurations, and what makes a saved folder complete."""
