//! The agent toolset: bash, read, write, edit, glob, grep.
#![forbid(unsafe_code)]
pub mod files;
