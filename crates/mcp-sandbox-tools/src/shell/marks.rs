//! Where a call's output ends, found in what the shell prints.
//!
//! After a command the shell prints two marks with the call's nonce: first the status, then whether it is fit for another
//! command. They are error messages of its parser (`main: line 1: [[: @NONCE:s0:: syntax error …`), because that is the only
//! way of printing in which no word is looked up: no function, alias, disabled builtin or search path can change it.

/// A status is at most this long; what is longer is no mark.
const STATUS_BYTES: usize = 64;
/// The rest of the last message is at most this long.
const MESSAGE_BYTES: usize = 4096;

/// What a traced shell prints first, and before a mark.
const TRACE: &[u8] = b"+ [[ ";

/// Looks for the marks of one call.
#[derive(Debug)]
pub(super) struct Marks {
    /// `@NONCE:`
    needle: Vec<u8>,
    /// What the shell prints before a mark, on the same line.
    prefix: Vec<u8>,
    held: Vec<u8>,
    status: Option<String>,
    fit: Option<Fit>,
    rest: Option<Vec<u8>>,
}

/// Whether the shell is fit for another command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fit {
    Ready,
    Broken,
}

impl Marks {
    pub(super) fn new(nonce: &str, prefix: &[u8]) -> Self {
        Self {
            needle: format!("@{nonce}:").into_bytes(),
            prefix: prefix.to_vec(),
            held: Vec::new(),
            status: None,
            fit: None,
            rest: None,
        }
    }

    /// Takes what the shell printed; returns what is certainly output of the command.
    pub(super) fn feed(&mut self, bytes: &[u8]) -> Vec<u8> {
        if let Some(rest) = &mut self.rest {
            rest.extend_from_slice(bytes);
            return Vec::new();
        }
        self.held.extend_from_slice(bytes);
        let output = match self.status {
            None => self.look_for_status(),
            Some(_) => Vec::new(),
        };
        if self.status.is_some() {
            self.look_for_end();
        }
        output
    }

    /// Both marks were there, completely.
    pub(super) fn fit(&self) -> Option<Fit> {
        self.fit.filter(|_| self.rest.is_some())
    }

    /// What the command says about itself.
    pub(super) fn status(&self) -> Option<&str> {
        self.status.as_deref()
    }

    /// What was printed after the marks, by somebody in the background; without marks, what was held back.
    pub(super) fn into_rest(self) -> Vec<u8> {
        match (self.rest, self.status) {
            (Some(rest), _) => rest,
            (None, None) => self.held,
            (None, Some(_)) => Vec::new(),
        }
    }

    fn look_for_status(&mut self) -> Vec<u8> {
        let start = [self.needle.as_slice(), b"s"].concat();
        let mut from = 0;
        while let Some(at) = find(&self.held[from..], &start).map(|at| from + at) {
            let after = at + start.len();
            let text = &self.held[after..];
            match text.iter().take(STATUS_BYTES).position(|b| *b == b':') {
                Some(length) => {
                    let status = String::from_utf8_lossy(&text[..length]).into_owned();
                    let mut output = self.held[..at].to_vec();
                    self.held.drain(..after + length + 1);
                    self.status = Some(status);
                    output.truncate(at - self.lead_of(&output));
                    return output;
                }
                // The rest of it is on its way.
                None if text.len() < STATUS_BYTES => {
                    let lead = self.lead_of(&self.held[..at]);
                    return self.held.drain(..at - lead).collect();
                }
                None => from = after,
            }
        }
        let keep = self.unfinished(&start);
        self.held.drain(..self.held.len() - keep).collect()
    }

    /// Bytes at the end that may be the start of a mark.
    fn unfinished(&self, start: &[u8]) -> usize {
        let leads = [self.prefix.as_slice(), TRACE, b""];
        let wholes = leads.map(|lead| [lead, start].concat());
        let fits = |length: &usize| {
            let end = &self.held[self.held.len() - length..];
            wholes.iter().any(|whole| whole.starts_with(end))
        };
        let longest = wholes.iter().map(Vec::len).max().unwrap_or(0);
        let longest = longest.min(self.held.len());
        (1..=longest).rev().find(fits).unwrap_or(0)
    }

    /// Bytes before a mark that the shell has printed with it.
    fn lead_of(&self, before: &[u8]) -> usize {
        let leads = [self.prefix.as_slice(), TRACE];
        let lead = leads.into_iter().find(|lead| before.ends_with(lead));
        lead.map_or(0, <[u8]>::len)
    }

    fn look_for_end(&mut self) {
        if self.fit.is_none() {
            let at = |kind: &[u8]| find(&self.held, &[self.needle.as_slice(), kind].concat());
            let ready = at(b"r:").map(|at| (at, Fit::Ready));
            let broken = at(b"b:").map(|at| (at, Fit::Broken));
            // The first verdict counts, however the stream was cut: a later one may be a script's.
            let first = ready.into_iter().chain(broken).min_by_key(|(at, _)| *at);
            let Some((at, fit)) = first else {
                // Nothing of it is output: the shell's state goes this way where there is one stream only.
                let keep = self.held.len().min(self.needle.len() + 2);
                self.held.drain(..self.held.len() - keep);
                return;
            };
            self.fit = Some(fit);
            self.held.drain(..at);
        }
        let message = self.held.iter().take(MESSAGE_BYTES);
        let end = match message.clone().position(|b| *b == b'\n') {
            Some(at) => at + 1,
            None if message.len() == MESSAGE_BYTES => MESSAGE_BYTES,
            None => return,
        };
        self.rest = Some(self.held.split_off(end));
    }
}

pub(super) fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    let first = needle.first()?;
    let mut from = 0;
    while let Some(at) = haystack[from..].iter().position(|b| b == first) {
        if haystack[from + at..].starts_with(needle) {
            return Some(from + at);
        }
        from += at + 1;
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PREFIX: &[u8] = b"main: line 1: [[: ";

    fn printed(output: &[u8], status: &str, end: &str, rest: &[u8]) -> Vec<u8> {
        let mark = |mark: &str| {
            let prefix = String::from_utf8_lossy(PREFIX);
            format!(
                "{prefix}@N:{mark}:: syntax error: operand expected (error token is \"@N:{mark}:\")\n"
            )
        };
        let marks = [mark(&format!("s{status}")), "junk".to_owned(), mark(end)].concat();
        [output, marks.as_bytes(), rest].concat()
    }

    #[track_caller]
    fn check(stream: &[u8], output: &[u8], status: Option<&str>, fit: Option<Fit>, rest: &[u8]) {
        for size in 1..=stream.len() {
            let mut marks = Marks::new("N", PREFIX);
            let got: Vec<u8> = stream
                .chunks(size)
                .flat_map(|chunk| marks.feed(chunk))
                .collect();
            assert_eq!(got, output, "in pieces of {size}");
            assert_eq!(marks.status(), status);
            assert_eq!(marks.fit(), fit);
            assert_eq!(marks.into_rest(), rest, "in pieces of {size}");
        }
    }

    #[test]
    fn the_first_verdict_counts_in_any_pieces() {
        let broken = printed(b"out", "0", "b", b"");
        let late = [broken.as_slice(), b"@N:r:\n"].concat();
        check(&late, b"out", Some("0"), Some(Fit::Broken), b"@N:r:\n");
        check(
            b"@N:s0:@N:b:@N:r:\n",
            b"",
            Some("0"),
            Some(Fit::Broken),
            b"",
        );
        check(b"@N:s0:@N:r:@N:b:\n", b"", Some("0"), Some(Fit::Ready), b"");
    }

    #[test]
    fn a_message_without_an_end_is_cut_at_the_same_place_in_any_pieces() {
        let long = [b"@N:s0:@N:r:".as_slice(), &[b'x'; MESSAGE_BYTES], b"\nrest"].concat();
        let rest = &long[6 + MESSAGE_BYTES..];
        check(&long, b"", Some("0"), Some(Fit::Ready), rest);
    }

    #[test]
    fn marks_are_found_and_removed() {
        let ready = Some(Fit::Ready);
        check(&printed(b"", "0", "r", b""), b"", Some("0"), ready, b"");
        check(
            &printed(b"a\nb", "127", "r", b""),
            b"a\nb",
            Some("127"),
            ready,
            b"",
        );
        check(
            &printed(b"a\xff\0", "1", "b", b"later\n"),
            b"a\xff\0",
            Some("1"),
            Some(Fit::Broken),
            b"later\n",
        );
    }

    #[test]
    fn what_is_no_mark_is_output() {
        for stream in [
            b"plain".as_slice(),
            b"main: line 1: [[",
            b"@N:s",
            b"@M:s0:",
            b"main: line 1: [[: @M:r: @N:r: @",
        ] {
            let mut marks = Marks::new("N", PREFIX);
            let mut got = marks.feed(stream);
            assert_eq!((marks.status(), marks.fit()), (None, None));
            got.extend(marks.into_rest());
            assert_eq!(got, stream);
        }
    }

    #[test]
    fn a_flood_after_a_false_start_is_not_held() {
        let mut marks = Marks::new("N", PREFIX);
        marks.feed(b"@N:s");
        for _ in 0..100 {
            marks.feed(&[b'x'; 4096]);
            assert!(marks.held.len() < 8192);
        }
        let mut marks = Marks::new("N", PREFIX);
        marks.feed(b"@N:s0:");
        for _ in 0..100 {
            marks.feed(&[b'x'; 4096]);
            assert!(marks.held.len() < 8192);
        }
        assert!(marks.fit().is_none());
    }

    proptest! {
        #[test]
        fn any_output_comes_out_as_it_went_in(
            output in prop::collection::vec(prop::sample::select(b"@N:srb01[ \nmain".to_vec()), 0..40),
            size in 1_usize..20,
        ) {
            prop_assume!(find(&output, b"@N:").is_none() && !output.ends_with(b"@"));
            let stream = printed(&output, "7", "r", b"");
            let mut marks = Marks::new("N", PREFIX);
            let got: Vec<u8> = stream.chunks(size).flat_map(|chunk| marks.feed(chunk)).collect();
            prop_assert_eq!(got, output);
            prop_assert_eq!((marks.status(), marks.fit()), (Some("7"), Some(Fit::Ready)));
        }
    }
}
