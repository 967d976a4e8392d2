"""The providers: one room for each, which alone knows how that provider speaks."""
