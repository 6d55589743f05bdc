//! Small programs that embed one library each.
