//! Which addresses a private-network program may dial.
