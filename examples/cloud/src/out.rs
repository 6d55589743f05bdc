//! Standard output, which may be a pipe that nobody reads any more.

use std::fmt;
use std::io::Write as _;

/// Writes a line. Where the reader has gone (`| head`), there is nobody to tell it to.
pub(crate) fn line(text: fmt::Arguments<'_>) {
    drop(writeln!(std::io::stdout().lock(), "{text}"));
}

/// [`println!`] that does not panic when the reader has gone.
macro_rules! say {
    () => { $crate::out::line(format_args!("")) };
    ($($text:tt)*) => { $crate::out::line(format_args!($($text)*)) };
}
pub(crate) use say;
