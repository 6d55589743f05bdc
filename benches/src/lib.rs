//! What the benchmarks share: peers behind one trait, connections to put them on, loads, and the table of results.
#![forbid(unsafe_code)]
#![expect(
    clippy::exhaustive_structs,
    clippy::exhaustive_enums,
    clippy::missing_panics_doc,
    unnameable_types,
    missing_debug_implementations,
    reason = "used by this package's benchmarks only"
)]

pub mod clock;
pub mod conduit;
pub mod ends;
pub mod load;
pub mod options;
pub mod peers;
pub mod pipe;
pub mod scene;
pub mod table;
