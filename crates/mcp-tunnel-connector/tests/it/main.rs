//! A connector against an edge made of the transport alone, and MCP servers made of sockets.

#[cfg(test)]
mod cancel;
#[cfg(test)]
mod check;
#[cfg(test)]
mod connector;
#[cfg(test)]
mod edge;
#[cfg(test)]
mod server;
