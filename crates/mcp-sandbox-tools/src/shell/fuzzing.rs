//! What the fuzz targets check of the shell.

use super::marks::Marks;
use super::state::State;

/// The first byte says how the rest is cut.
pub(crate) fn output(bytes: &[u8]) {
    let Some((size, stream)) = bytes.split_first() else {
        return;
    };
    let read = |size: usize| {
        let mut marks = Marks::new("N", b"main: line 1: [[: ");
        let mut output = Vec::new();
        for chunk in stream.chunks(size) {
            output.extend(marks.feed(chunk));
        }
        (
            marks.status().map(str::to_owned),
            marks.fit(),
            output,
            marks.into_rest(),
        )
    };
    let (status, fit, mut output, rest) = read(stream.len().max(1));
    let cut = read(usize::from(*size).max(1));
    assert_eq!((&status, fit), (&cut.0, cut.1));
    if status.is_none() {
        // Nothing is lost, whatever is held back.
        output.extend(rest);
        assert_eq!(output, stream);
    } else {
        assert_eq!(output, cut.2);
    }
}

/// What is taken over is written anew, and is then the same.
pub(crate) fn state(bytes: &[u8]) {
    let mut state = State::new("/");
    if state.take_over(bytes) {
        let _ = (state.prelude(), state.last_options(), state.env());
        let mut again = State::new("/");
        assert!(again.take_over(bytes) && again == state);
    }
}
