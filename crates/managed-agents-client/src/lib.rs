//! REST client of the Managed Agents API.
