//! Reads the ZIP archives that skills come in, and believes nothing in them.
//!
//! ```text
//!            ┌── local header, packed bytes ◄─┐ says only where its bytes begin
//!  archive ──┼── central directory ───────────┴── entries(): name, kind, size ──► Entry::read()
//!            └── end record ──► where the directory is                            counted, checked
//! ```
//!
//! Just enough of the format: stored and deflated entries, no encryption, no ZIP64 (an archive that needs it is larger than
//! a skill may be), no spanning. Everything comes from the central directory, which is what other readers show. Memory is
//! that of the entries that are really there; what comes out is counted and compared with its checksum.
//!
//! # Example
//!
//! ```
//! use mcp_skill_zip::{Kind, ZipError, archive, entries};
//! use std::io::Read as _;
//!
//! let packed = archive(&[("my-skill/SKILL.md", 0o100_644, b"text")]).unwrap();
//! for entry in entries(&packed, 100)? {
//!     assert_eq!(entry.name(), b"my-skill/SKILL.md");
//!     assert_eq!(entry.kind(), Kind::File { executable: false });
//!     let mut text = String::new();
//!     entry.read(|content| content.read_to_string(&mut text).map_err(|_| ZipError::Damaged))?;
//!     assert_eq!(text, "text");
//! }
//! # Ok::<(), mcp_skill_zip::ZipError>(())
//! ```
//!
//! # What it does not do
//!
//! It judges no names: `../../etc/passwd` is one, and two entries may have the same. It writes no files. It has no cargo
//! features, and builds for `wasm32-unknown-unknown`.
#![forbid(unsafe_code)]
#![warn(
    clippy::indexing_slicing,
    clippy::string_slice,
    clippy::wildcard_enum_match_arm
)]

mod read;
mod write;

pub use read::{Entry, Kind, ZipError, entries, is_zip};
pub use write::archive;

const END: u32 = 0x0605_4b50;
const CENTRAL: u32 = 0x0201_4b50;
const LOCAL: u32 = 0x0403_4b50;
/// The system whose modes a central record has.
const UNIX: u8 = 3;
const DEFLATE: u16 = 8;
