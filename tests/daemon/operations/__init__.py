"""Operations, from their prepare to what is told of them."""
