"""Messages and services without rosidl: definitions, Python classes, CDR and type hashes."""
