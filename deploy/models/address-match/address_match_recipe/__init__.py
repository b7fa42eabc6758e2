"""The recipe behind the address-match bundle: package data in, bundle out."""
