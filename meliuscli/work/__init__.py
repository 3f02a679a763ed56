"""One idea of long work: a folder made whole, held by one writer, interrupted and gone on with; and who hears of it."""
