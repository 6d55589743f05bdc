//! Sessions.

use async_trait::async_trait;
use mcp_tunnel_auth::WorkId;

use super::SqliteStore;
use crate::store::{ItemHome, SessionStore, StoreError};

#[async_trait]
impl SessionStore for SqliteStore {
    async fn item_home(&self, _work: WorkId) -> Result<Option<ItemHome>, StoreError> {
        Ok(None)
    }
}
