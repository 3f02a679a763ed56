"""What a network is: frozen specs, named networks, and their layers in order. No torch here."""
