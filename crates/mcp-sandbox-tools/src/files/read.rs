use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;

use super::path::resolve;
use super::{Failure, Places};
use crate::input::ReadInput;
use crate::result::{Block, Source, ToolResult};

/// Largest text, whole or selected.
pub(super) const TEXT_BYTES: u64 = 256 * 1024;
/// Largest image: 5 MiB in base64.
const IMAGE_BYTES: u64 = 5 * 1024 * 1024 / 4 * 3;
/// Largest PDF.
const PDF_BYTES: u64 = 20 * 1024 * 1024;

pub(super) fn read(places: &Places, input: &ReadInput) -> Result<ToolResult, Failure> {
    let given = &input.file_path;
    let target = resolve(places, given)?;
    let range = match input.view_range.as_deref() {
        None | Some([]) => None,
        Some([start, end]) => Some((*start, *end)),
        Some(_) => return Err(Failure::new("view_range must be [start_line, end_line]")),
    };
    let (file, size) = open_regular(&target, given)?;
    if let Some(media_type) = media_type(&target) {
        if range.is_some() {
            return Err(Failure::new(
                "view_range is not supported for image/PDF files",
            ));
        }
        return media(file, size, given, media_type);
    }
    match range {
        Some(range) => lines(file, size, given, range),
        None if size > TEXT_BYTES => Err(Failure::new(format!(
            "{given} is {size} bytes, exceeds {TEXT_BYTES}-byte limit. Use the view_range parameter \
             to read specific line ranges, e.g. view_range: [1, 500]."
        ))),
        None => text(content(file, TEXT_BYTES, given)?, given).map(ToolResult::text),
    }
}

/// Opens a regular file, without waiting for anything that is none.
pub(super) fn open_regular(target: &Path, given: &str) -> Result<(File, u64), Failure> {
    let found = std::fs::metadata(target).map_err(|error| Failure::io(given, &error))?;
    if !found.is_file() {
        return Err(Failure::new(format!("{given}: not a regular file")));
    }
    let mut options = File::options();
    // It may have become a FIFO since.
    options.read(true).custom_flags(NO_WAIT);
    let file = options
        .open(target)
        .map_err(|error| Failure::io(given, &error))?;
    let found = file
        .metadata()
        .map_err(|error| Failure::io(given, &error))?;
    if !found.is_file() {
        return Err(Failure::new(format!("{given}: not a regular file")));
    }
    Ok((file, found.len()))
}

/// O_NONBLOCK, the same number on every architecture that we build for.
const NO_WAIT: i32 = 0o4000;

/// Reads all of a file that may grow while it is read.
pub(super) fn content(file: File, limit: u64, given: &str) -> Result<Vec<u8>, Failure> {
    let mut content = Vec::new();
    let read = file.take(limit.saturating_add(1)).read_to_end(&mut content);
    read.map_err(|error| Failure::io(given, &error))?;
    if content.len() as u64 > limit {
        return Err(Failure::new(format!("{given} exceeds {limit}-byte limit.")));
    }
    Ok(content)
}

fn text(bytes: Vec<u8>, given: &str) -> Result<String, Failure> {
    String::from_utf8(bytes).map_err(|_| {
        Failure::new(format!(
            "{given}: not valid UTF-8 text (binary files are only supported for image/PDF extensions)"
        ))
    })
}

/// The lines of a range, 1-based and inclusive; an end below 1 is the end of the file.
fn lines(
    file: File,
    size: u64,
    given: &str,
    (start, end): (i64, i64),
) -> Result<ToolResult, Failure> {
    let first = u64::try_from(start.saturating_sub(1)).unwrap_or(0);
    let end = if end > 0 {
        u64::try_from(end).unwrap_or(u64::MAX)
    } else {
        u64::MAX
    };
    let mut selected = Vec::new();
    let mut reader = BufReader::with_capacity(64 * 1024, file);
    let mut line = 0;
    while line < end {
        let chunk = reader
            .fill_buf()
            .map_err(|error| Failure::io(given, &error))?;
        if chunk.is_empty() {
            break;
        }
        let (used, ended) = match chunk.iter().position(|b| *b == b'\n') {
            Some(at) => (at + 1, true),
            None => (chunk.len(), false),
        };
        if line >= first {
            selected.extend_from_slice(&chunk[..used]);
            if selected.len() as u64 > TEXT_BYTES {
                return Err(Failure::new(format!(
                    "the selected lines of {given} ({size} bytes) exceed the {TEXT_BYTES}-byte limit"
                )));
            }
        }
        line += u64::from(ended);
        reader.consume(used);
    }
    // The line end of the last selected line is not part of it, unless an empty line follows.
    if line >= end && selected.last() == Some(&b'\n') {
        selected.pop();
    }
    text(selected, given).map(ToolResult::text)
}

fn media(
    file: File,
    size: u64,
    given: &str,
    media_type: &'static str,
) -> Result<ToolResult, Failure> {
    let pdf = media_type == "application/pdf";
    let limit = if pdf { PDF_BYTES } else { IMAGE_BYTES };
    if size > limit {
        return Err(Failure::new(format!(
            "{given} is {size} bytes, exceeds {limit}-byte limit for image/PDF files."
        )));
    }
    let data = BASE64_STANDARD.encode(content(file, limit, given)?);
    let source = Source::Base64 {
        media_type: media_type.to_owned(),
        data,
    };
    Ok(ToolResult::block(if pdf {
        Block::Document { source }
    } else {
        Block::Image { source }
    }))
}

fn media_type(path: &Path) -> Option<&'static str> {
    let extension = path.extension()?.to_str()?.to_ascii_lowercase();
    match extension.as_str() {
        "png" => Some("image/png"),
        "jpg" | "jpeg" => Some("image/jpeg"),
        "gif" => Some("image/gif"),
        "webp" => Some("image/webp"),
        "pdf" => Some("application/pdf"),
        _ => None,
    }
}
