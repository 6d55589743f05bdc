//! Tests of the whole core, over a virtual link.

mod pair;
mod reference;

mod abuse;
mod basic;
mod chunking;
mod credit;
mod fairness;
mod faults;
mod frames;
mod goaway;
mod handshake;
mod liveness;
mod model;
mod pacing;
mod resume;
mod resume_handshake;
mod script;
mod sim;
mod streams;
mod violations;
mod windows;
