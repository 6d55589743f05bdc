//! Skills and their content.

use crate::error::ClientError;
use crate::http::Http;
use managed_agents_api::{Page, PageQuery, Skill, SkillVersion};
use reqwest::{Method, Response};
use std::time::Duration;

/// The routes under `/v1/skills`.
///
/// Every call can be cancelled.
#[derive(Clone, Copy, Debug)]
pub struct Skills<'a> {
    pub(crate) http: &'a Http,
}

impl Skills<'_> {
    /// One page of skills.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn page(self, query: &PageQuery) -> Result<Page<Skill>, ClientError> {
        self.http.read(&["v1", "skills"], query).await
    }

    /// A version of a skill; `latest` is one.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn version(self, id: &str, version: &str) -> Result<SkillVersion, ClientError> {
        self.http
            .read(&["v1", "skills", id, "versions", version], &())
            .await
    }

    /// Begins to read the archive of a version: zip, tar or tar.gz.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn content(self, id: &str, version: &str) -> Result<Content, ClientError> {
        let path = ["v1", "skills", id, "versions", version, "content"];
        let request = self.http.request(Method::GET, &path, &())?;
        let response = self.http.open(request).await?;
        Ok(Content {
            http: self.http.clone(),
            response,
            silence: self.http.timeout(),
        })
    }
}

/// Bytes of an archive, as they come.
#[derive(Debug)]
pub struct Content {
    http: Http,
    response: Response,
    silence: Duration,
}

impl Content {
    /// The next bytes; `None` at the end. Each wait has the client's timeout.
    ///
    /// # Errors
    /// See [`ClientError`].
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn chunk(&mut self) -> Result<Option<Vec<u8>>, ClientError> {
        let (http, response) = (&self.http, &mut self.response);
        let read = async { response.chunk().await.map_err(|source| http.broken(source)) };
        let chunk = http.within(self.silence, read).await?;
        Ok(chunk.map(Vec::from))
    }

    /// All of it, of at most `limit` bytes.
    ///
    /// # Errors
    /// See [`ClientError`]; [`ClientError::TooLong`] as soon as one byte is too many.
    pub async fn bytes(mut self, limit: usize) -> Result<Vec<u8>, ClientError> {
        let mut bytes = Vec::new();
        while let Some(chunk) = self.chunk().await? {
            if bytes.len() + chunk.len() > limit {
                return Err(ClientError::TooLong { limit });
            }
            bytes.extend_from_slice(&chunk);
        }
        Ok(bytes)
    }
}
