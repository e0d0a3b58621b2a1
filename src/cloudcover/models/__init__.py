"""The networks, their input scale, and the folder of a trained model."""
