"""The networks, their input scale, and the folder in which a trained model is kept."""
