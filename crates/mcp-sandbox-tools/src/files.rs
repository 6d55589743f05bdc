//! The part that runs inside a sandbox.

use std::io::{self, Read, Write};

/// Serves one request.
///
/// # Errors
/// Standard output is gone.
pub fn serve(line: &str, input: &mut impl Read, output: &mut impl Write) -> io::Result<()> {
    let _ = (line, input);
    output.write_all(b"{}\n")
}
