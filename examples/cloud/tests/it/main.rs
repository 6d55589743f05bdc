//! The program as its users start it.

mod cli;
mod cloud;
mod life;
mod names;
mod sdk;
mod session_cli;
mod sessions;
