//! Wire types of the Managed Agents REST API.
