"""Teachers: generated texts, token distributions and their cache, teams, prompt context."""
