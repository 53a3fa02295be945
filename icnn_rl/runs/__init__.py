"""What every training run is made of: configuration, folder, files, progress, clean stops."""
