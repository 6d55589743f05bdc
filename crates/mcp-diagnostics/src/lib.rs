//! Check reports, admin listener and telemetry set-up.
