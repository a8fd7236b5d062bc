"""The tests: names read as sentences, fakes are real servers and processes, and nobody sleeps."""
