//! The routes as clients see them.

mod common;
mod permissions;
mod wire;
