use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use super::{FileError, Places, open};

/// Bytes of text that one call reads, or edits: 256 KiB, about 64,000 tokens.
pub(super) const MAX_FILE_BYTES: u64 = 256 * 1024;
/// Bytes of an image once it is in base64: 5 MiB, what the API takes.
pub(super) const MAX_IMAGE_BASE64_BYTES: u64 = 5 * 1024 * 1024;
/// Bytes of a PDF: 20 MiB, so that a request with it stays below the API's limit.
pub(super) const MAX_PDF_BYTES: u64 = 20 * 1024 * 1024;

const CHUNK: usize = 64 * 1024;

/// What a file holds.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub(super) enum Content {
    /// Text, as it is in the file.
    Text(String),
    /// An image, judged by the file's name.
    Image {
        /// Such as `image/png`.
        media_type: &'static str,
        /// The whole file.
        bytes: Vec<u8>,
    },
    /// A PDF, judged by the file's name.
    Pdf {
        /// The whole file.
        bytes: Vec<u8>,
    },
}

/// Reads a file, or lines `[start, end]` of it, counted from 1; an end of 0 or less is the end of the file.
///
/// Text is limited to [`MAX_FILE_BYTES`]; with a range the limit is on what is selected.
///
/// # Errors
/// Any [`FileError`] but those of edit, glob and grep.
pub(super) fn read(places: &Places, path: &str, range: &[i64]) -> Result<Content, FileError> {
    let full = places.resolve(path)?;
    let range = match range {
        [] => None,
        [start, end] => Some((*start, *end)),
        _ => return Err(FileError::RangeShape),
    };
    let (file, size) = open::for_reading(&full, path)?;
    if let Some(media_type) = media_type(&full) {
        if range.is_some() {
            return Err(FileError::RangeOfBinary);
        }
        return binary(file, path, size, media_type);
    }
    match range {
        Some((start, end)) if size > MAX_FILE_BYTES => {
            let mut lines = Lines::new(path, start, end);
            lines.collect(file)?;
            text(lines.collected, path).map(Content::Text)
        }
        _ => {
            let whole = whole_text(file, size, path)?;
            Ok(Content::Text(match range {
                Some((start, end)) => select(&whole, start, end),
                None => whole,
            }))
        }
    }
}

fn binary(
    file: File,
    path: &str,
    size: u64,
    media_type: &'static str,
) -> Result<Content, FileError> {
    let pdf = media_type == PDF;
    let limit = if pdf {
        MAX_PDF_BYTES
    } else {
        MAX_IMAGE_BASE64_BYTES / 4 * 3
    };
    let too_large = || FileError::TooLarge {
        path: path.to_owned(),
        size,
        limit,
        hint: " for image/PDF files.",
    };
    if size > limit {
        return Err(too_large());
    }
    let bytes = open::read_up_to(file, limit, path)?.ok_or_else(too_large)?;
    Ok(if pdf {
        Content::Pdf { bytes }
    } else {
        Content::Image { media_type, bytes }
    })
}

fn whole_text(file: File, size: u64, path: &str) -> Result<String, FileError> {
    let too_large = || FileError::TooLarge {
        path: path.to_owned(),
        size,
        limit: MAX_FILE_BYTES,
        hint: ". Use the view_range parameter to read specific line ranges, e.g. view_range: [1, 500].",
    };
    if size > MAX_FILE_BYTES {
        return Err(too_large());
    }
    let bytes = open::read_up_to(file, MAX_FILE_BYTES, path)?.ok_or_else(too_large)?;
    text(bytes, path)
}

fn text(bytes: Vec<u8>, path: &str) -> Result<String, FileError> {
    String::from_utf8(bytes).map_err(|_| FileError::NotText {
        path: path.to_owned(),
        hint: "binary files are only supported for image/PDF extensions",
    })
}

/// Lines of a text in memory; the line feed after the last one is not part of it.
fn select(whole: &str, start: i64, end: i64) -> String {
    let skip = before(start);
    let take = match usize::try_from(end) {
        Ok(end) if end > 0 => end.saturating_sub(skip),
        _ => usize::MAX,
    };
    let lines: Vec<_> = whole.split('\n').skip(skip).take(take).collect();
    lines.join("\n")
}

/// How many lines come before line `start`.
fn before(start: i64) -> usize {
    usize::try_from(start.saturating_sub(1)).unwrap_or(0)
}

/// Collects lines of a file that does not fit into memory.
struct Lines<'a> {
    path: &'a str,
    start: i64,
    end: i64,
    skip: usize,
    /// Number of lines of the file after which nothing is wanted.
    stop: usize,
    line: usize,
    collected: Vec<u8>,
}

impl<'a> Lines<'a> {
    fn new(path: &'a str, start: i64, end: i64) -> Self {
        Self {
            path,
            start,
            end,
            skip: before(start),
            stop: usize::try_from(end)
                .ok()
                .filter(|end| *end > 0)
                .unwrap_or(usize::MAX),
            line: 0,
            collected: Vec::new(),
        }
    }

    fn collect(&mut self, mut file: File) -> Result<(), FileError> {
        if self.stop <= self.skip {
            return Ok(());
        }
        let mut chunk = vec![0; CHUNK];
        while self.line < self.stop {
            let count = file
                .read(&mut chunk)
                .map_err(|error| FileError::io(self.path, error))?;
            if count == 0 {
                break;
            }
            self.take(&chunk[..count])?;
        }
        Ok(())
    }

    fn take(&mut self, chunk: &[u8]) -> Result<(), FileError> {
        for piece in chunk.split_inclusive(|byte| *byte == b'\n') {
            if self.line >= self.stop {
                break;
            }
            let ended = piece.ends_with(b"\n");
            if self.line >= self.skip {
                let last = self.line + 1 == self.stop;
                let piece = piece.strip_suffix(b"\n").filter(|_| last).unwrap_or(piece);
                self.collected.extend_from_slice(piece);
                if self.collected.len() as u64 > MAX_FILE_BYTES {
                    return Err(self.too_large());
                }
            }
            self.line += usize::from(ended);
        }
        Ok(())
    }

    fn too_large(&self) -> FileError {
        let (path, limit) = (self.path.to_owned(), MAX_FILE_BYTES);
        if self.stop - self.skip == 1 {
            return FileError::LineTooLong {
                path,
                line: self.start.max(1),
                limit,
            };
        }
        FileError::RangeTooLarge {
            path,
            start: self.start,
            end: self.end,
            limit,
        }
    }
}

const PDF: &str = "application/pdf";

/// By the name's ending alone, as the official clients do.
fn media_type(full: &Path) -> Option<&'static str> {
    let ending = full.extension()?.to_str()?.to_ascii_lowercase();
    Some(match ending.as_str() {
        "png" => "image/png",
        "jpg" | "jpeg" => "image/jpeg",
        "gif" => "image/gif",
        "webp" => "image/webp",
        "pdf" => PDF,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use proptest::prelude::*;

    use super::super::places;
    use super::*;

    #[track_caller]
    fn check(content: &[u8], name: &str, range: &[i64], expect: Result<&str, &str>) {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(name), content).unwrap();
        let got = read(&places(folder.path()), name, range);
        let got = got.map_err(|error| error.to_string());
        match expect {
            Ok(text) => assert_eq!(got, Ok(Content::Text(text.to_owned()))),
            Err(part) => assert!(got.as_ref().unwrap_err().contains(part), "{got:?}"),
        }
    }

    #[test]
    fn text_is_returned_as_it_is() {
        check(b"", "a", &[], Ok(""));
        check("h\u{e9}\r\nx\n".as_bytes(), "a", &[], Ok("h\u{e9}\r\nx\n"));
        check(b"\xff", "a", &[], Err("a: not valid UTF-8 text"));
    }

    #[test]
    fn ranges_count_from_one_and_include_their_end() {
        let text = b"1\n2\n3\n";
        check(text, "a", &[1, 2], Ok("1\n2"));
        check(text, "a", &[2, 0], Ok("2\n3\n"));
        check(text, "a", &[3, -1], Ok("3\n"));
        check(text, "a", &[-5, 1], Ok("1"));
        check(text, "a", &[3, 2], Ok(""));
        check(text, "a", &[9, 10], Ok(""));
        check(text, "a", &[i64::MIN, i64::MAX], Ok("1\n2\n3\n"));
        check(text, "a", &[1], Err("view_range must be"));
        check(text, "a", &[1, 2, 3], Err("view_range must be"));
    }

    #[test]
    fn large_files_are_read_by_range_only() {
        let line = [b"x".repeat(1023), b"\n".to_vec()].concat();
        let text = line.repeat(300);
        check(
            &text,
            "a",
            &[],
            Err("a is 307200 bytes, exceeds 262144-byte limit"),
        );
        check(
            &text,
            "a",
            &[1, 300],
            Err("view_range [1, 300] of a exceeds"),
        );
        check(
            &text,
            "a",
            &[300, 0],
            Ok(&format!("{}\n", "x".repeat(1023))),
        );
        check(&text, "a", &[300, 300], Ok(&"x".repeat(1023)));
        check(&text, "a", &[301, 0], Ok(""));
        check(
            &b"x".repeat(300_000),
            "a",
            &[1, 1],
            Err("line 1 of a alone exceeds"),
        );
    }

    #[test]
    fn images_and_pdfs_are_returned_whole() {
        let folder = tempfile::tempdir().unwrap();
        let roots = places(folder.path());
        for (name, media_type) in [
            ("a.png", "image/png"),
            ("a.JPG", "image/jpeg"),
            ("a.jpeg", "image/jpeg"),
            ("a.gif", "image/gif"),
            ("a.webp", "image/webp"),
        ] {
            fs::write(folder.path().join(name), b"\x89PNG\0").unwrap();
            let bytes = b"\x89PNG\0".to_vec();
            let expect = Content::Image { media_type, bytes };
            assert_eq!(read(&roots, name, &[]).unwrap(), expect);
        }
        fs::write(folder.path().join("a.pdf"), b"%PDF").unwrap();
        let expect = Content::Pdf {
            bytes: b"%PDF".to_vec(),
        };
        assert_eq!(read(&roots, "a.pdf", &[]).unwrap(), expect);
        check(
            b"%PDF",
            "a.pdf",
            &[1, 2],
            Err("view_range is not supported"),
        );
        let size = usize::try_from(MAX_IMAGE_BASE64_BYTES / 4 * 3).unwrap();
        check(
            &vec![0; size + 1],
            "b.png",
            &[],
            Err("b.png is 3932161 bytes, exceeds 3932160-byte limit for image/PDF files."),
        );
    }

    #[test]
    fn only_regular_files_are_read() {
        let folder = tempfile::tempdir().unwrap();
        let fifo = folder.path().join("fifo");
        let made = std::process::Command::new("mkfifo").arg(&fifo).status();
        assert!(made.unwrap().success());
        let roots = places(folder.path());
        for path in ["fifo", "."] {
            let error = read(&roots, path, &[]).unwrap_err();
            assert!(matches!(error, FileError::NotRegular { .. }), "{error:?}");
        }
        let error = read(&roots, "none", &[]).unwrap_err();
        assert_eq!(error.to_string(), "none: no such file or directory");
    }

    proptest! {
        #[test]
        fn streamed_lines_are_those_of_the_whole(
            text in "[a\n\u{e9}]{0,60}", start in -3i64..12, end in -3i64..12,
        ) {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("a");
            fs::write(&path, &text).unwrap();
            let mut lines = Lines::new("a", start, end);
            lines.collect(File::open(&path).unwrap()).unwrap();
            let streamed = String::from_utf8(lines.collected).unwrap();
            prop_assert_eq!(streamed, select(&text, start, end));
        }
    }
}
