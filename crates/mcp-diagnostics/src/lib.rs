//! Check reports, admin listener and telemetry set-up.
#![forbid(unsafe_code)]
