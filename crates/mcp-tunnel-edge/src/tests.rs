//! The whole edge in memory, with virtual time: real TLS, real frames, gateways that tests play.

mod counted;
mod gateway;
mod world;

mod calls;
mod cancel;
mod kept;
mod links;
mod serve;
mod silent;
