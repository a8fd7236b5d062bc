"""Operations: pin, restore, join and leave as objects that outlive the connection that began them."""
