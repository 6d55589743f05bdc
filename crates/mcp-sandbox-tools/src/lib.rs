//! The agent toolset: bash, read, write, edit, glob, grep.
