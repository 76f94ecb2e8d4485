"""Speech recognition: from sound to text with times, offline and as it arrives."""
