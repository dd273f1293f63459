"""Fill videos: read frames, fill them, and write them with the sound, the times and the colours of the source."""
