//! Which addresses a private-network program may dial.
//!
//! A program inside a private network that dials on behalf of others can be turned against that network: towards the
//! cloud's metadata service, a neighbour's admin port, or an internal address dressed up as a foreign one. This crate
//! judges an address *after* it was resolved; the caller then dials exactly that address and no other.
//!
//! ```text
//! host ──resolve──► addresses ──► Policy::judge ──┬─ Ok(Class) ──► dial this address
//!  (caller)                       (this crate)    └─ Err(Refusal { reason, cure })
//! ```
//!
//! | class | [`Policy::mcp_server`] | [`Policy::internet`] |
//! |---|---|---|
//! | loopback, private | yes | no |
//! | public | over TLS | over TLS |
//! | shared (carrier NAT) | as a literal or listed address | no |
//! | metadata, link-local, multicast, broadcast, documentation, reserved, unspecified | no | no |
//! | an IPv4 address inside an IPv6 one (mapped, compatible, translated, NAT64, 6to4, Teredo, ISATAP) | no | no |
//!
//! # Example
//!
//! ```
//! use mcp_dial_guard::{Class, Dial, Policy};
//!
//! let policy = Policy::mcp_server();
//! assert_eq!(policy.judge("10.0.0.7".parse()?, Dial::resolved_plain()), Ok(Class::Private));
//!
//! let refusal = policy.judge("169.254.169.254".parse()?, Dial::resolved_plain()).unwrap_err();
//! assert_eq!(refusal.to_string(), "169.254.169.254 is a cloud metadata service");
//! println!("{}", refusal.cure());
//! # Ok::<(), std::net::AddrParseError>(())
//! ```
//!
//! # What it does not do
//!
//! - It resolves and dials nothing: judge every address that the resolver gave, then dial a judged one. A second
//!   look-up between the two undoes the judgement.
//! - It does not follow redirects, nor know of them: judge the address of each target, or follow none.
//! - It does not know prefixes that only one network uses, such as its own NAT64: deny them by [`Policy::deny`].
//! - It does not look at ports.
//!
//! It has no cargo features, and builds for `wasm32-unknown-unknown`.

#![forbid(unsafe_code)]

mod class;
mod policy;

pub use class::{Class, Disguise};
pub use policy::{Dial, Naming, NetError, Policy, Reason, Refusal, Scheme, parse_net};
