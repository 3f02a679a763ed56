"""What each generated page is made from, a module a subject."""
