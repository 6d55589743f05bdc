//! Which addresses a private-network program may dial.
#![forbid(unsafe_code)]
