"""Which features of SAEs are found again in one another, by direction and by the faces that fire them."""
