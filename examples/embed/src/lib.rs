//! Small programs that embed one library each.
#![forbid(unsafe_code)]
