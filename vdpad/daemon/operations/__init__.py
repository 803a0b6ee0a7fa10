"""Operations: what became of each migration that was asked for."""
