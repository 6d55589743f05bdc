//! Fuzz targets and their corpora.
#![forbid(unsafe_code)]
