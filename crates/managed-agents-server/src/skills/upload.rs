//! A skill's files as they come: `multipart/form-data`, one part a file, or one part that is
//! a ZIP archive of all of them.

use std::collections::BTreeMap;

use axum::body::Body;
use axum::extract::Request;
use bytes::Bytes;
use http::header::CONTENT_TYPE;
use managed_agents_api::ErrorType;
use managed_agents_api::serve::ApiError;
use mcp_skill_zip::is_zip;
use multer::{Constraints, Field, Multipart, SizeLimit};
use tokio::sync::Semaphore;

use super::frontmatter::Frontmatter;
use super::zip::{self, ArchiveError};
use crate::hooks::{NAME_MOST, checked_text};

/// A version of a skill, judged.
#[derive(Debug)]
pub(super) struct Upload {
    pub(super) name: String,
    pub(super) description: String,
    /// A tar archive with one folder, named like the skill.
    pub(super) archive: Bytes,
    display_name: Option<String>,
}

impl Upload {
    /// Reads the body, when fewer than [`UPLOADS_MOST`] others are read.
    pub(super) async fn read(uploads: &Semaphore, request: Request) -> Result<Self, ApiError> {
        let _place = uploads.acquire().await.map_err(|_| ApiError::internal())?;
        let (head, body) = request.into_parts();
        let boundary = head
            .headers
            .get(CONTENT_TYPE)
            .and_then(|value| value.to_str().ok())
            .and_then(|value| multer::parse_boundary(value).ok())
            .ok_or_else(|| ApiError::invalid("the files of a skill come as multipart/form-data"))?;
        let (files, display_name) = parts(body, boundary).await?;
        // Unpacking takes a while, which others need not wait for.
        let judged = tokio::task::spawn_blocking(move || Self::of(files, display_name));
        judged.await.map_err(|_| ApiError::internal())?
    }

    fn of(files: Files, display_name: Option<String>) -> Result<Self, ApiError> {
        let (folder, files) = folder(unpacked(files)?)?;
        let text = files
            .get(MAIN)
            .ok_or_else(|| ApiError::invalid(format!("files: {MAIN} is missing")))?;
        let (name, description) = identity(&text.content, folder)?;
        Ok(Self {
            archive: archive(&name, &files).map_err(|_| ApiError::internal())?,
            name,
            description,
            display_name,
        })
    }

    /// What people call the skill: its name, where they do not say.
    pub(super) fn display_name(&self) -> Result<String, ApiError> {
        let text = self.display_name.as_ref().unwrap_or(&self.name);
        checked_text("display_name", text, NAME_MOST)
    }
}

type Files = BTreeMap<String, File>;

#[derive(Debug)]
struct File {
    content: Bytes,
    executable: bool,
}

impl File {
    /// Forms carry no modes: what starts like a script is one.
    fn new(content: Bytes, executable: bool) -> Self {
        Self {
            executable: executable || content.starts_with(b"#!"),
            content,
        }
    }
}

async fn parts(body: Body, boundary: String) -> Result<(Files, Option<String>), ApiError> {
    let sizes = SizeLimit::new()
        .whole_stream(BYTES_MOST)
        .per_field(BYTES_MOST);
    let constraints = Constraints::new().size_limit(sizes);
    let stream = body.into_data_stream();
    let mut form = Multipart::with_constraints(stream, boundary, constraints);
    let mut files = Files::new();
    let mut display_name = None;
    while let Some(field) = form.next_field().await.map_err(|error| malformed(&error))? {
        match field.name() {
            Some("files" | "files[]") => add_file(&mut files, field).await?,
            Some("display_name" | "display_title") => {
                let text = field.text().await.map_err(|error| malformed(&error))?;
                display_name = Some(text).filter(|text| !text.is_empty());
            }
            _ => {}
        }
    }
    Ok((files, display_name))
}

async fn add_file(files: &mut Files, field: Field<'_>) -> Result<(), ApiError> {
    let path = field.file_name().map(str::to_owned).ok_or_else(|| {
        ApiError::invalid("files: a part has no file name, such as my-skill/SKILL.md")
    })?;
    let path = checked_path(path)?;
    room_for_one(files)?;
    let content = field.bytes().await.map_err(|error| malformed(&error))?;
    insert(files, path, File::new(content, false))
}

fn room_for_one(files: &Files) -> Result<(), ApiError> {
    if files.len() >= FILES_MOST {
        return Err(ApiError::invalid(format!("files: at most {FILES_MOST}")));
    }
    Ok(())
}

fn insert(files: &mut Files, path: String, file: File) -> Result<(), ApiError> {
    if files.insert(path, file).is_some() {
        return Err(ApiError::invalid("files: one path is given twice"));
    }
    Ok(())
}

/// The files themselves, where they are in one archive.
fn unpacked(files: Files) -> Result<Files, ApiError> {
    let archive = match files.first_key_value() {
        Some((_, only)) if files.len() == 1 && is_zip(&only.content) => only.content.clone(),
        _ => return Ok(files),
    };
    let mut files = Files::new();
    for file in zip::files(&archive, BYTES_MOST).map_err(unusable)? {
        room_for_one(&files)?;
        let path = checked_path(file.path)?;
        insert(&mut files, path, File::new(file.content, file.executable))?;
    }
    Ok(files)
}

fn unusable(error: ArchiveError) -> ApiError {
    match error {
        ArchiveError::TooLarge => too_large(),
        other => ApiError::invalid(format!("files: {other}")),
    }
}

/// A path that means the same everywhere: relative, down only, nothing that is special
/// to a shell's eyes or a terminal.
fn checked_path(path: String) -> Result<String, ApiError> {
    let plain = |part: &str| {
        !part.is_empty()
            && part != "."
            && part != ".."
            && part.len() <= PART_BYTES_MOST
            && !part.contains(|c: char| c.is_control() || c == '\\')
    };
    if path.len() <= PATH_BYTES_MOST && path.split('/').all(plain) {
        return Ok(path);
    }
    Err(ApiError::invalid(
        "files: a file name is a relative path without `..`, such as my-skill/scripts/run.sh",
    ))
}

/// The one folder that all files are in, if they are in one, and the files in it.
fn folder(files: Files) -> Result<(Option<String>, Files), ApiError> {
    let mut tops = files.keys().map(|path| path.split_once('/'));
    let top = match tops.next().flatten() {
        Some((top, _)) => top.to_owned(),
        None => return Ok((None, files)),
    };
    if !tops.all(|other| other.is_some_and(|(other, _)| other == top)) {
        return Err(ApiError::invalid(
            "files: all of them are in one folder, named like the skill",
        ));
    }
    let below = files
        .into_iter()
        .filter_map(|(path, content)| Some((path.split_once('/')?.1.to_owned(), content)))
        .collect();
    Ok((Some(top), below))
}

/// Name and description, from the head of `SKILL.md`; else the folder is the name.
fn identity(text: &Bytes, folder: Option<String>) -> Result<(String, String), ApiError> {
    let text = std::str::from_utf8(text)
        .map_err(|_| ApiError::invalid(format!("files: {MAIN} is not UTF-8")))?;
    let head = Frontmatter::of(text).unwrap_or_default();
    let name = head.name.or(folder).unwrap_or_default();
    let letters = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    if !(1..=SLUG_MOST).contains(&name.len()) || !name.bytes().all(letters) {
        return Err(ApiError::invalid(format!(
            "files: the name in the head of {MAIN} is 1 to {SLUG_MOST} lower-case letters, \
             digits and hyphens"
        )));
    }
    let description = head.description.ok_or_else(|| {
        ApiError::invalid(format!(
            "files: the head of {MAIN} (lines between two of `---`) has no description"
        ))
    })?;
    let description = checked_text("files: the description", &description, DESCRIPTION_MOST)?;
    Ok((name, description))
}

/// The files below one folder.
fn archive(name: &str, files: &Files) -> std::io::Result<Bytes> {
    let mut archive = tar::Builder::new(Vec::new());
    for (path, file) in files {
        let content = &file.content;
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Regular);
        header.set_size(content.len() as u64);
        header.set_mode(if file.executable { 0o755 } else { 0o644 });
        header.set_mtime(0);
        archive.append_data(&mut header, format!("{name}/{path}"), &content[..])?;
    }
    archive.into_inner().map(Bytes::from)
}

fn malformed(error: &multer::Error) -> ApiError {
    match error {
        multer::Error::StreamSizeExceeded { .. } | multer::Error::FieldSizeExceeded { .. } => {
            too_large()
        }
        // Its text names parts and positions, never contents.
        other => ApiError::invalid(format!("body: {other}")),
    }
}

fn too_large() -> ApiError {
    let most = BYTES_MOST / (1024 * 1024);
    ApiError::new(
        ErrorType::TooLarge,
        format!("the files of a skill are at most {most} MiB together"),
    )
}

const MAIN: &str = "SKILL.md";

/// Bytes of a skill's files, forms around them included: about the vendor's limit. Each
/// upload holds twice as much for a moment, an archive three times.
const BYTES_MOST: u64 = 30 * 1024 * 1024;

/// Uploads that are read at once, which bounds the memory that they take.
pub(crate) const UPLOADS_MOST: usize = 4;

/// Files of a skill.
const FILES_MOST: usize = 500;

const PATH_BYTES_MOST: usize = 512;
const PART_BYTES_MOST: usize = 200;

/// Longest name and description: the vendor's limits.
const SLUG_MOST: usize = 64;
const DESCRIPTION_MOST: usize = 1024;

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    const HEAD: &str = "---\nname: my-skill\ndescription: What it is for.\n---\n";

    fn form(parts: &[(&str, Option<&str>, &str)]) -> Request {
        let mut body = String::new();
        for (name, file, content) in parts {
            let file = file.map_or_else(String::new, |file| format!("; filename=\"{file}\""));
            body += &format!(
                "--x\r\ncontent-disposition: form-data; name=\"{name}\"{file}\r\n\r\n{content}\r\n"
            );
        }
        body += "--x--\r\n";
        http::Request::builder()
            .header("content-type", "multipart/form-data; boundary=x")
            .body(Body::from(body))
            .unwrap()
    }

    async fn read(parts: &[(&str, Option<&str>, &str)]) -> Result<Upload, String> {
        Upload::read(&Semaphore::new(1), form(parts))
            .await
            .map_err(|error| error.message().to_owned())
    }

    #[tokio::test]
    async fn files_become_an_archive_with_one_folder() {
        let upload = read(&[
            ("display_name", None, "My skill"),
            ("files[]", Some("dir/SKILL.md"), HEAD),
            ("files[]", Some("dir/scripts/run.sh"), "#!/bin/sh\n"),
        ])
        .await
        .unwrap();
        assert_eq!(upload.name, "my-skill");
        assert_eq!(upload.description, "What it is for.");
        assert_eq!(upload.display_name().unwrap(), "My skill");
        let mut archive = tar::Archive::new(&upload.archive[..]);
        let mut found = Vec::new();
        for entry in archive.entries().unwrap() {
            let mut entry = entry.unwrap();
            let mut text = String::new();
            entry.read_to_string(&mut text).unwrap();
            let path = entry.path().unwrap().display().to_string();
            found.push((path, entry.header().mode().unwrap(), text));
        }
        let expected = [
            ("my-skill/SKILL.md", 0o644, HEAD),
            ("my-skill/scripts/run.sh", 0o755, "#!/bin/sh\n"),
        ];
        assert_eq!(
            found,
            expected.map(|(path, mode, text)| (path.to_owned(), mode, text.to_owned()))
        );
    }

    async fn read_archive(entries: &[(&str, u32, &[u8])]) -> Result<Upload, String> {
        let head =
            "--x\r\ncontent-disposition: form-data; name=\"files[]\"; filename=\"a.zip\"\r\n\r\n";
        let mut body = head.as_bytes().to_vec();
        body.extend(mcp_skill_zip::archive(entries).unwrap());
        body.extend(b"\r\n--x--\r\n");
        let mut request = form(&[]);
        *request.body_mut() = body.into();
        let upload = Upload::read(&Semaphore::new(1), request).await;
        upload.map_err(|error| error.message().to_owned())
    }

    #[tokio::test]
    async fn one_archive_is_the_same_as_its_files() {
        let modes = |upload: &Upload| {
            let mut archive = tar::Archive::new(&upload.archive[..]);
            let entries = archive.entries().unwrap().map(Result::unwrap);
            let entries = entries.map(|entry| {
                let path = entry.path().unwrap().display().to_string();
                (path, entry.header().mode().unwrap())
            });
            entries.collect::<Vec<_>>()
        };
        let expected = [("my-skill/SKILL.md", 0o644), ("my-skill/tool", 0o755)];
        let expected = expected.map(|(path, mode)| (path.to_owned(), mode));
        for folder in ["", "dir/"] {
            let [main, tool] = ["SKILL.md", "tool"].map(|name| format!("{folder}{name}"));
            let entries = [
                (main.as_str(), 0o100_644, HEAD.as_bytes()),
                (tool.as_str(), 0o100_755, b"\x7fELF"),
            ];
            let upload = read_archive(&entries).await.unwrap();
            assert_eq!(upload.name, "my-skill");
            assert_eq!(modes(&upload), expected);
        }
    }

    #[tokio::test]
    async fn what_is_wrong_in_an_archive_is_said() {
        let skill = ("a/SKILL.md", 0o100_644, HEAD.as_bytes());
        for (entries, expected) in [
            (vec![skill, ("../x", 0o100_644, b"")], "relative path"),
            (vec![skill, ("/x", 0o100_644, b"")], "relative path"),
            (vec![skill, ("b/x", 0o100_644, b"")], "in one folder"),
            (vec![skill, skill], "given twice"),
            (vec![skill, ("a/x", 0o120_777, b"/")], "a link"),
            (vec![("a/x", 0o100_644, b"")], "SKILL.md is missing"),
        ] {
            let told = read_archive(&entries).await.unwrap_err();
            assert!(told.contains(expected), "{told}");
        }
        let zeros = vec![0; usize::try_from(BYTES_MOST).unwrap() / 2 + 1];
        let bomb = [
            skill,
            ("a/x", 0o100_644, &zeros),
            ("a/y", 0o100_644, &zeros),
        ];
        let told = read_archive(&bomb).await.unwrap_err();
        assert!(told.contains("at most 30 MiB"), "{told}");
    }

    #[tokio::test]
    async fn a_name_is_that_of_the_folder_where_the_head_has_none() {
        let text = "---\ndescription: d\n---\n";
        let upload = read(&[("files", Some("folder-name/SKILL.md"), text)]).await;
        let upload = upload.unwrap();
        assert_eq!(upload.name, "folder-name");
        assert_eq!(upload.display_name().unwrap(), "folder-name");
    }

    #[tokio::test]
    async fn what_is_wrong_is_said() {
        let skill = ("files[]", Some("a/SKILL.md"), HEAD);
        for (parts, expected) in [
            (vec![], "SKILL.md is missing"),
            (
                vec![("files[]", Some("a/OTHER.md"), HEAD)],
                "SKILL.md is missing",
            ),
            (vec![skill, skill], "given twice"),
            (vec![skill, ("files[]", Some("b/x"), "")], "in one folder"),
            (vec![skill, ("files[]", None, "")], "no file name"),
            (
                vec![("files[]", Some("a/SKILL.md"), "text")],
                "no description",
            ),
            (
                vec![(
                    "files[]",
                    Some("a/SKILL.md"),
                    "---\nname: A b\ndescription: d\n---\n",
                )],
                "lower-case letters",
            ),
        ] {
            let told = read(&parts).await.unwrap_err();
            assert!(told.contains(expected), "{told}");
        }
        for path in ["/etc/passwd", "a/../b", "a//b", "./a", "a\\b", "..", ""] {
            let told = read(&[skill, ("files[]", Some(path), "")])
                .await
                .unwrap_err();
            assert!(
                told.contains("relative path") || told.contains("no file name"),
                "{path}: {told}"
            );
        }
    }
}
