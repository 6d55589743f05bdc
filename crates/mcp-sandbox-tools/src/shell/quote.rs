//! Quoting for bash, and reading what bash has quoted.

/// In single quotes, so that nothing in it means anything.
pub(super) fn single(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// Reads one word at the start of `text` as bash quotes it; returns it and the rest.
///
/// Words are plain, in double quotes, in single quotes, or in `$'…'`, and any of
/// these joined.
pub(super) fn word<'a>(text: &'a str, ends: &[char]) -> Option<(String, &'a str)> {
    let (mut out, mut rest) = (String::new(), text);
    loop {
        let first = rest.chars().next();
        rest = match first {
            None => return Some((out, rest)),
            Some(c) if ends.contains(&c) => return Some((out, rest)),
            Some('"') => double(&rest[1..], &mut out)?,
            Some('\'') => {
                let (inner, after) = rest[1..].split_once('\'')?;
                out.push_str(inner);
                after
            }
            Some('$') if rest.starts_with("$'") => ansi(&rest[2..], &mut out)?,
            Some('\\') => {
                let escaped = rest[1..].chars().next()?;
                out.push(escaped);
                &rest[1 + escaped.len_utf8()..]
            }
            Some(c) => {
                out.push(c);
                &rest[c.len_utf8()..]
            }
        };
    }
}

/// After an opening double quote, up to and with the closing one.
fn double<'a>(text: &'a str, out: &mut String) -> Option<&'a str> {
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Some(&text[at + 1..]),
            '\\' => {
                let (_, escaped) = chars.next()?;
                if !matches!(escaped, '\\' | '"' | '$' | '`' | '\n') {
                    out.push('\\');
                }
                out.push(escaped);
            }
            c => out.push(c),
        }
    }
    None
}

/// After `$'`, up to and with the closing quote.
fn ansi<'a>(text: &'a str, out: &mut String) -> Option<&'a str> {
    let mut bytes = Vec::new();
    let mut chars = text.char_indices().peekable();
    while let Some((at, c)) = chars.next() {
        match c {
            '\'' => {
                out.push_str(&String::from_utf8_lossy(&bytes));
                return Some(&text[at + 1..]);
            }
            '\\' => {
                let (_, escaped) = chars.next()?;
                let byte = match escaped {
                    'a' => 7,
                    'b' => 8,
                    'E' | 'e' => 27,
                    'f' => 12,
                    'n' => b'\n',
                    'r' => b'\r',
                    't' => b'\t',
                    'v' => 11,
                    '0'..='7' => {
                        let mut value = escaped.to_digit(8)?;
                        for _ in 0..2 {
                            let Some(digit) = chars.peek().and_then(|(_, c)| c.to_digit(8)) else {
                                break;
                            };
                            value = value * 8 + digit;
                            chars.next();
                        }
                        u8::try_from(value & 0xff).ok()?
                    }
                    other if other.is_ascii() => u8::try_from(other).ok()?,
                    _ => return None,
                };
                bytes.push(byte);
            }
            c => bytes.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
    None
}

/// Removes terminal control sequences (`ESC [ … letter`).
pub(super) fn without_escapes(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("\u{1b}[") {
        out.push_str(&rest[..at]);
        let body = &rest[at + 2..];
        let parameters = body
            .find(|c: char| !matches!(c, '0'..='9' | ';' | '?'))
            .unwrap_or(body.len());
        let between = &body[parameters..];
        let letters = between
            .find(|c: char| !matches!(c, ' '..='/'))
            .unwrap_or(between.len());
        match between[letters..].chars().next() {
            Some('@'..='~') => rest = &between[letters + 1..],
            _ => {
                out.push_str("\u{1b}[");
                rest = body;
            }
        }
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expect: Option<(&str, &str)>) {
        let got = word(text, &[' ', ')', '\n']);
        assert_eq!(
            got.as_ref().map(|(word, rest)| (word.as_str(), *rest)),
            expect,
            "{text}"
        );
    }

    #[test]
    fn words_are_read_as_bash_writes_them() {
        check(
            r#""a \"b\" \$c \\ d" rest"#,
            Some((r#"a "b" $c \ d"#, " rest")),
        );
        check("\"two\nlines\"\n", Some(("two\nlines", "\n")));
        check(
            r"$'a\tb\n\E\001\'\\\303\251') x",
            Some(("a\tb\n\u{1b}\u{1}'\\é", ") x")),
        );
        check("plain", Some(("plain", "")));
        check("'a'\\''b'", Some(("a'b", "")));
        check("\"open", None);
        check("$'open", None);
        check("\"a\\", None);
    }

    #[test]
    fn single_quotes_keep_everything() {
        let text = "a'b\"$`\\\n!";
        let quoted = single(text);
        assert_eq!(word(&quoted, &[]).unwrap().0, text);
    }

    #[test]
    fn control_sequences_are_removed_and_nothing_else() {
        assert_eq!(without_escapes("a\u{1b}[1;31mb\u{1b}[?25hc"), "abc");
        assert_eq!(without_escapes("\u{1b}[\u{1b}[K"), "\u{1b}[");
        assert_eq!(without_escapes("\u{1b}]0;t\u{7}x"), "\u{1b}]0;t\u{7}x");
    }
}
